"""Children that follow docs/lifecycle.md by a script: for tests of the JVM operators alone.

`spec` of the am: `dir` (marks of ended processes), `ends` (how many end the cluster),
`listen_after_s`, `dies` (how often the master kills itself), `fails` (message), `is_fatal`.
`spec` of a role: `dir`, `ignores_stop`, `reports` (values), `asks` (for a newer master, until
there is the file `go-on` in `dir`), and for its process: `ends_at`, `dies_at` (rows, once per
`dir`), `dies_after_barriers`, `hangs_at`, `waits_at` (rows; for `go-on`), `acknowledges`
(false: no barrier), `connects_after_s`.
"""

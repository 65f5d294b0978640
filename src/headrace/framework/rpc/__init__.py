"""The RPC between nodes and master: gRPC without generated code, JSON by msgspec.

Every call carries the job's token; one with another token is refused before its message is
looked at.
"""

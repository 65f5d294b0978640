"""The ML framework: master, nodes, runners."""

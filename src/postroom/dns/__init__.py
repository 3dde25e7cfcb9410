"""DNS as mail needs it: checked answers, the choice of hosts, a caching resolver."""

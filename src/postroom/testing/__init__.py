"""The public test kit: fakes, servers and scripts to test a whole site with."""

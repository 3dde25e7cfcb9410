"""What operators ask for and say: control sockets, and the supervisor's link."""

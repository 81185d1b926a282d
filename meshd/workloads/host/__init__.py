"""Services of the host: units of systemd, and where they are declared."""

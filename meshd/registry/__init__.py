"""What there is: services, their endpoints, and which workloads are members. Pure."""

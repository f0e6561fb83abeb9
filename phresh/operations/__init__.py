"""Health: what a load balancer or a container engine asks."""

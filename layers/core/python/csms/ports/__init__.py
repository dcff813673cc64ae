"""The interfaces of services that have, or will have, several implementations."""

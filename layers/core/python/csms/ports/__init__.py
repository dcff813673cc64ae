"""What csms asks of services that have, or will have, several implementations."""

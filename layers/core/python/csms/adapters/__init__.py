"""The services that csms uses: DynamoDB, API Gateway, SES and Stripe. Each adapter knows only its own service."""

"""The services that csms uses: DynamoDB, API Gateway, CloudFront, SES, SQS and Stripe. Each adapter knows only its own
service."""

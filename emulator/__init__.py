"""AWS on a laptop with ministack: the CDK's own CLI deploys the synthesized stack to it.

`adapt` lists what the emulator cannot do, `assembly` prepares a copy of cdk.out accordingly, `aws` runs the emulator
and the CLI, `edge` does for stations what the emulator's CloudFront cannot, and `deployment` combines them.
"""

"""AWS on a laptop, as far as ministack goes: the synthesized stack is deployed to it by the CDK's own CLI.

`adapt` says what of the stack the emulator cannot do, `assembly` prepares a copy of cdk.out accordingly, `aws` runs the
emulator and the CLI, `edge` is what the emulator's CloudFront lacks for stations, `deployment` puts it together.
"""

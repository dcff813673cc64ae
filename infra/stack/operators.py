"""The operators' user pool, and the mail that invites an operator."""

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_cognito as cognito
from aws_cdk import aws_ses as ses
from constructs import Construct

from infra.options import Options
from infra.stack.acknowledged_findings import accept


def operator_pool(scope: Construct, options: Options) -> cognito.UserPool:
    """The pool, whose users are invited; self-registration is off."""
    whose = options.mail_identity
    is_domain = "@" not in whose
    if whose:
        identity = ses.Identity.domain(whose) if is_domain else ses.Identity.email(whose)
        ses.EmailIdentity(scope, "MailIdentity", identity=identity)
    sender = cognito.UserPoolEmail.with_ses(
        from_email=options.mail_from, ses_verified_domain=whose if is_domain else None
    )
    pool = cognito.UserPool(
        scope,
        "Operators",
        self_sign_up_enabled=False,
        sign_in_aliases=cognito.SignInAliases(email=True),
        sign_in_case_sensitive=False,
        account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
        mfa=cognito.Mfa.OPTIONAL,
        mfa_second_factor=cognito.MfaSecondFactor(otp=True, sms=False),
        password_policy=cognito.PasswordPolicy(
            min_length=14, require_lowercase=True, require_uppercase=True, require_digits=True, require_symbols=True
        ),
        email=sender if options.mail_from else None,
        deletion_protection=True,
        removal_policy=RemovalPolicy.RETAIN,
    )
    accept(
        pool,
        {
            "AwsSolutions-COG2": "A second factor is each operator's choice: the first one must be able to sign in "
            "from a script, which docs/deploying.md does.",
            "AwsSolutions-COG8": "Threat protection needs Cognito's Plus plan, which costs per operator and month.",
        },
    )
    return pool


def console_client(pool: cognito.UserPool) -> cognito.UserPoolClient:
    """The client for operators' sign-in from a browser or a script, so it has no secret."""
    return pool.add_client(
        "Console",
        auth_flows=cognito.AuthFlow(user_srp=True, admin_user_password=True),
        disable_o_auth=True,
        prevent_user_existence_errors=True,
        access_token_validity=Duration.hours(1),
        id_token_validity=Duration.hours(1),
        refresh_token_validity=Duration.days(1),
    )

"""The two CloudFront distributions: one for stations, one for browsers and Stripe."""

from pathlib import Path
from typing import Any, Final

from aws_cdk import DefaultStackSynthesizer, Stack
from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_route53 as route53
from aws_cdk import aws_route53_targets as route53_targets
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_deployment as deployment
from constructs import Construct

from csms.adapters.cloudfront import ORIGIN_HEADER
from infra import routes
from infra.options import Options
from infra.pages import pages_function
from infra.stack.acknowledged_findings import accept, wildcard
from infra.stack.logs import log_group

ROOT: Final = Path(__file__).parents[2]

ACCEPTED: Final = {
    "AwsSolutions-CFR1": "Drivers and stations are wherever the operator is; the operator can restrict countries.",
    "AwsSolutions-CFR2": "WAF costs more than the rest of a small installation; csms:webRequests puts it in.",
    "AwsSolutions-CFR3": "The HTTP API and the functions log what was asked; these logs would add drivers' addresses.",
    "AwsSolutions-CFR4": "CloudFront's own name has no choice of TLS versions; a domain of the operator's has one.",
}


def ocpp_distribution(
    scope: Construct, options: Options, *, api: apigateway.IApi, origin_secret: str, web_acl_arn: str | None
) -> cloudfront.Distribution:
    """The stations' distribution, whose function turns the path into the query parameter cp."""
    function = cloudfront.Function(
        scope,
        "OcppPath",
        runtime=cloudfront.FunctionRuntime.JS_2_0,
        code=cloudfront.FunctionCode.from_file(file_path=str(ROOT / "infra/edge/ocpp_path.js")),
    )
    distribution = cloudfront.Distribution(
        scope,
        "Ocpp",
        comment="OCPP stations",
        http_version=cloudfront.HttpVersion.HTTP1_1,
        web_acl_id=web_acl_arn,
        # The newest policy that still has the RSA key exchange named by OCPP's security profiles, for stations with old
        # TLS stacks.
        **_domain(scope, options.ocpp_domain, options, cloudfront.SecurityPolicyProtocol.TLS_V1_2_2018),
        default_behavior=cloudfront.BehaviorOptions(
            origin=_api_origin(scope, api, origin_secret),
            function_associations=[_viewer_request_association(function)],
            allowed_methods=cloudfront.AllowedMethods.ALLOW_GET_HEAD,
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
            **_uncached_behavior(),
        ),
    )
    accept(distribution, ACCEPTED)
    _add_alias_records(scope, "OcppName", options.ocpp_domain, options, distribution)
    return distribution


def web_distribution(
    scope: Construct, options: Options, *, api: apigateway.IApi, origin_secret: str, web_acl_arn: str | None
) -> cloudfront.Distribution:
    """The drivers' distribution: pages from a bucket and the HTTP API under its own paths, as one origin for the
    browser."""
    bucket = s3.Bucket(
        scope,
        "Web",
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        enforce_ssl=True,
        encryption=s3.BucketEncryption.S3_MANAGED,
    )
    accept(bucket, {"AwsSolutions-S1": "It holds the public pages, and CloudFront alone may read it."})
    function = cloudfront.Function(
        scope,
        "PagePath",
        runtime=cloudfront.FunctionRuntime.JS_2_0,
        code=cloudfront.FunctionCode.from_inline(pages_function(routes.PAGES)),
    )
    address = cloudfront.Function(
        scope,
        "ViewerAddress",
        runtime=cloudfront.FunctionRuntime.JS_2_0,
        code=cloudfront.FunctionCode.from_file(file_path=str(ROOT / "infra/edge/viewer_address.js")),
    )
    distribution = cloudfront.Distribution(
        scope,
        "Pages",
        comment="Driver pages and the HTTP API",
        web_acl_id=web_acl_arn,
        **_domain(scope, options.web_domain, options, cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021),
        default_behavior=cloudfront.BehaviorOptions(
            origin=origins.S3BucketOrigin.with_origin_access_control(bucket),
            function_associations=[_viewer_request_association(function)],
            viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
            response_headers_policy=cloudfront.ResponseHeadersPolicy.SECURITY_HEADERS,
        ),
        additional_behaviors={
            path: cloudfront.BehaviorOptions(
                origin=_api_origin(scope, api, origin_secret),
                function_associations=[_viewer_request_association(address)],
                allowed_methods=cloudfront.AllowedMethods.ALLOW_ALL,
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.HTTPS_ONLY,
                response_headers_policy=cloudfront.ResponseHeadersPolicy.SECURITY_HEADERS,
                **_uncached_behavior(),
            )
            for path in dict.fromkeys(f"/{route.path.split('/')[1]}/*" for route in routes.HTTP)
        },
    )
    accept(distribution, ACCEPTED)
    _add_alias_records(scope, "WebName", options.web_domain, options, distribution)
    files = deployment.BucketDeployment(
        scope,
        "WebFiles",
        sources=[deployment.Source.asset(str(ROOT / "web"))],
        destination_bucket=bucket,
        destination_key_prefix="assets",
        distribution=distribution,
        distribution_paths=["/*"],
        log_group=log_group(scope, "WebFilesLogs", options),
    )
    _accept_cdk_findings(files, bucket)
    return distribution


def _accept_cdk_findings(files: deployment.BucketDeployment, bucket: s3.Bucket) -> None:
    """Accept all findings in the CDK's own function that copies the pages."""
    stack = Stack.of(files)
    bootstrap = "cdk-" + DefaultStackSynthesizer.DEFAULT_QUALIFIER + "-assets"
    assets = f"arn:{stack.partition}:s3:::{bootstrap}-{stack.account}-{stack.region}/*"
    findings = (
        "AwsSolutions-L1",
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole]",
        *(
            f"AwsSolutions-IAM5[Action::s3:{verb}*]"
            for verb in ("GetBucket", "GetObject", "List", "Abort", "DeleteObject")
        ),
        wildcard(files, assets),
        wildcard(files, f"{bucket.bucket_arn}/*"),
        wildcard(files, "*"),
    )
    why = "The CDK's own function, which runs at deployment only, copies from its asset bucket and tells CloudFront."
    accept(files.handler_role.node.scope, dict.fromkeys(findings, why))


def public_domain(distribution: cloudfront.Distribution, domain: str) -> str:
    """The public domain name of a distribution."""
    return domain or distribution.distribution_domain_name


def _domain(
    scope: Construct, domain: str, options: Options, protocol: cloudfront.SecurityPolicyProtocol
) -> dict[str, Any]:
    """The arguments for a domain of the operator; none for CloudFront's own name."""
    if not domain:
        return {}
    certificate = scope.node.try_find_child("Certificate") or acm.Certificate.from_certificate_arn(
        scope, "Certificate", options.certificate_arn
    )
    return {"domain_names": [domain], "certificate": certificate, "minimum_protocol_version": protocol}


def _add_alias_records(
    scope: Construct, name: str, domain: str, options: Options, distribution: cloudfront.Distribution
) -> None:
    """Add the domain to the operator's hosted zone, if there is one."""
    if not (domain and options.hosted_zone_id):
        return
    route53.ARecord(
        scope,
        name,
        zone=route53.HostedZone.from_hosted_zone_id(scope, f"{name}Zone", options.hosted_zone_id),
        record_name=f"{domain}.",
        target=route53.RecordTarget.from_alias(route53_targets.CloudFrontTarget(distribution)),
    )


def _api_origin(scope: Construct, api: apigateway.IApi, secret: str) -> origins.HttpOrigin:
    stack = Stack.of(scope)
    return origins.HttpOrigin(
        f"{api.api_id}.execute-api.{stack.region}.{stack.url_suffix}",
        protocol_policy=cloudfront.OriginProtocolPolicy.HTTPS_ONLY,
        custom_headers={ORIGIN_HEADER: secret},
    )


def _viewer_request_association(function: cloudfront.Function) -> cloudfront.FunctionAssociation:
    return cloudfront.FunctionAssociation(function=function, event_type=cloudfront.FunctionEventType.VIEWER_REQUEST)


def _uncached_behavior() -> dict[str, Any]:
    """The behavior for an API behind CloudFront: nothing is cached, and everything is forwarded except Host, which must
    be the API's own."""
    return {
        "cache_policy": cloudfront.CachePolicy.CACHING_DISABLED,
        "origin_request_policy": cloudfront.OriginRequestPolicy.ALL_VIEWER_EXCEPT_HOST_HEADER,
    }

"""Amazon SES on a laptop: it takes mails from an unmodified boto3 client (v2 SendEmail), and writes each to a folder as
an .eml file."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from aiohttp import web

from local.invoke import aws_error, refuse_request

ROUTE: Final = "POST /v2/email/outbound-emails"


def mail_handler(folder: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of ROUTE. It creates the folder with the first mail."""

    async def send(request: web.Request) -> web.StreamResponse:
        if refusal := await refuse_request(request):
            return refusal
        now = datetime.now(UTC)
        try:
            message = build_message(json.loads(await request.read()), now)
        except (KeyError, TypeError, ValueError) as wrong:
            return aws_error(400, "BadRequestException", f"Not a simple mail: {type(wrong).__name__} {wrong}")
        message_id = str(uuid4())
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / f"{now:%Y%m%d-%H%M%S}-{message_id}.part"
        written.write_bytes(bytes(message))
        # The file is renamed when it is complete, so the folder never shows half a mail.
        written.rename(written.with_suffix(".eml"))
        return web.json_response({"MessageId": message_id})

    return send


def build_message(asked: dict[str, Any], now: datetime) -> EmailMessage:
    """The mail of a SendEmail request. Raises KeyError, TypeError or ValueError if it is none or has more than a plain
    text."""
    simple = asked["Content"]["Simple"]
    message = EmailMessage()
    message["From"] = asked["FromEmailAddress"]
    message["To"] = ", ".join(asked["Destination"]["ToAddresses"])
    message["Date"] = format_datetime(now)
    message["Subject"] = simple["Subject"]["Data"]
    message.set_content(simple["Body"]["Text"]["Data"])
    return message

"""Verifies and signs webhooks with the providers' own Python SDKs: a JSON request a line in, a JSON answer a line out."""

import base64
import json
import sys
import urllib.parse


class Request:
    """What paddle's verifier wants of a web framework's request."""

    def __init__(self, body, headers):
        self.body, self.data, self.content, self.headers = body, body, body, headers


def lower(headers):
    return {k.lower(): v for k, v in headers.items()}


def stripe(r):
    import stripe as sdk
    sdk.Webhook.construct_event(r["body"], r["headers"]["stripe-signature"], r["secret"])


def svix(r):
    from svix.webhooks import Webhook
    Webhook(r["secret"]).verify(r["body"], r["headers"])


def standard_webhooks(r):
    from standardwebhooks.webhooks import Webhook
    Webhook(r["secret"]).verify(r["body"], r["headers"])


def slack(r):
    from slack_sdk.signature import SignatureVerifier
    assert SignatureVerifier(r["secret"]).is_valid_request(r["body"], r["headers"])


def sign_slack(r):
    from slack_sdk.signature import SignatureVerifier
    stamp = str(r["at"])
    signature = SignatureVerifier(r["secret"]).generate_signature(timestamp=stamp, body=r["body"])
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}


def twilio_params(r):
    if "urlencoded" not in r["headers"].get("content-type", "urlencoded"):
        return r["body"].decode()
    return {k: v if len(v) > 1 else v[0] for k, v in urllib.parse.parse_qs(r["body"].decode(), keep_blank_values=True).items()}


def twilio(r):
    from twilio.request_validator import RequestValidator
    assert RequestValidator(r["secret"]).validate(r["url"], twilio_params(r), r["headers"]["x-twilio-signature"])


def sign_twilio(r):
    from twilio.request_validator import RequestValidator
    return {"X-Twilio-Signature": RequestValidator(r["secret"]).compute_signature(r["url"], twilio_params(r))}


def sendgrid(r):
    from sendgrid.helpers.eventwebhook import EventWebhook
    e = EventWebhook()
    h = r["headers"]
    assert e.verify_signature(
        r["body"].decode(), h["x-twilio-email-event-webhook-signature"], h["x-twilio-email-event-webhook-timestamp"],
        e.convert_public_key_to_ecdsa(r["secret"]))


def adyen(r):
    from Adyen import util
    for item in json.loads(r["body"])["notificationItems"]:
        assert util.is_valid_hmac_notification(item["NotificationRequestItem"], r["secret"])


def paddle(r):
    from paddle_billing.Notifications import Secret, Verifier
    assert Verifier(maximum_variance=60).verify(Request(r["body"], {"Paddle-Signature": r["headers"]["paddle-signature"]}), Secret(r["secret"]))


def square(r):
    from square.utils.webhooks_helper import verify_signature
    assert verify_signature(
        request_body=r["body"].decode(), signature_header=r["headers"]["x-square-hmacsha256-signature"],
        signature_key=r["secret"], notification_url=r["url"])


def razorpay(r):
    import razorpay as sdk
    sdk.Client(auth=("k", "s")).utility.verify_webhook_signature(r["body"].decode(), r["headers"]["x-razorpay-signature"], r["secret"])


def braintree_gateway(r):
    import braintree
    o = r["options"]
    return braintree.BraintreeGateway(braintree.Configuration(
        braintree.Environment.Sandbox, merchant_id="m", public_key=o["public_key"], private_key=o["private_key"]))


def braintree(r):
    form = urllib.parse.parse_qs(r["body"].decode())
    braintree_gateway(r).webhook_notification.parse(form["bt_signature"][0], form["bt_payload"][0])


def sign_braintree(r):
    n = braintree_gateway(r).webhook_testing.sample_notification("subscription_went_past_due", "sub_1")
    r["signed"] = urllib.parse.urlencode(n).encode()
    return {"Content-Type": "application/x-www-form-urlencoded"}


def discord(r):
    from discord_interactions import verify_key
    assert verify_key(r["body"], r["headers"]["x-signature-ed25519"], r["headers"]["x-signature-timestamp"], r["secret"])


def box(r):
    from box_sdk_gen import WebhooksManager
    assert WebhooksManager.validate_message(r["body"].decode(), r["headers"], r["secret"])


def hubspot(r):
    from hubspot.utils.signature import Signature
    h = r["headers"]
    assert Signature.is_valid(
        signature=h["x-hubspot-signature-v3"], client_secret=r["secret"], request_body=r["body"].decode(),
        http_uri=r["url"], http_method="POST", signature_version="v3", timestamp=h["x-hubspot-request-timestamp"])


def answer(r):
    name = r["provider"].replace("-", "_")
    r["body"] = base64.b64decode(r["body"])
    r["headers"] = lower(r.get("headers") or {})
    if r["op"] == "sign":
        headers = globals()["sign_" + name](r)
        return {"ok": True, "headers": headers, "body": base64.b64encode(r.get("signed", r["body"])).decode()}
    globals()[name](r)
    return {"ok": True}


answers, sys.stdout = sys.stdout, sys.stderr  # some SDKs print
for line in sys.stdin:
    try:
        said = answer(json.loads(line))
    except Exception as e:  # whatever an SDK raises is its refusal
        said = {"ok": False, "error": f"{type(e).__name__}: {e}"}
    print(json.dumps(said), file=answers, flush=True)

// Verifies and signs webhooks with the providers' own Node SDKs: a JSON request a line in, a JSON answer a line out.
import { createRequire } from "node:module";
import https from "node:https";
import { PassThrough } from "node:stream";
import readline from "node:readline";
import { pathToFileURL } from "node:url";

const require = createRequire(process.env.SDKS + "/package.json");

// Modules without a form for require.
const octokit = () => import(pathToFileURL(process.env.SDKS + "/node_modules/@octokit/webhooks-methods/dist-node/index.js").href);

console.log = console.error; // some SDKs print

const need = (ok) => {
  if (!ok) throw new Error("refused");
};

const verify = {
  github: async (r) => {
    const { verify } = await octokit();
    need(await verify(r.secret, r.body.toString(), r.headers["x-hub-signature-256"]));
  },
  shopify: async (r) => {
    require("@shopify/shopify-api/adapters/node");
    const { shopifyApi, LATEST_API_VERSION, ApiVersion, LogSeverity } = require("@shopify/shopify-api");
    const api = shopifyApi({
      apiKey: "k", apiSecretKey: r.secret, hostName: "hooks.example.com", isEmbeddedApp: true,
      apiVersion: LATEST_API_VERSION ?? Object.values(ApiVersion).at(-1), logger: { level: LogSeverity.Error },
    });
    const headers = { "x-shopify-api-version": "2026-07", "x-shopify-shop-domain": "a.myshopify.com", ...r.headers };
    const said = await api.webhooks.validate({ rawBody: r.body.toString(), rawRequest: { method: "POST", url: "/", headers } });
    if (!said.valid) throw new Error(said.reason);
  },
  linear: async (r) => {
    const { LinearWebhooks } = require("@linear/sdk/webhooks");
    const Client = LinearWebhooks ?? require("@linear/sdk/webhooks").LinearWebhookClient;
    need(new Client(r.secret).verify(r.body, r.headers["linear-signature"], JSON.parse(r.body).webhookTimestamp));
  },
  "coinbase-commerce": async (r) => {
    require("coinbase-commerce-node").Webhook.verifySigHeader(r.body.toString(), r.headers["x-cc-webhook-signature"], r.secret);
  },
  adyen: async (r) => {
    const { hmacValidator } = require("@adyen/api-library");
    for (const item of JSON.parse(r.body).notificationItems) {
      need(new hmacValidator().validateHMAC(item.NotificationRequestItem, r.secret));
    }
  },
  paddle: async (r) => {
    const { Paddle } = require("@paddle/paddle-node-sdk");
    need(await new Paddle("key").webhooks.isSignatureValid(r.body.toString(), r.secret, r.headers["paddle-signature"]));
  },
  twilio: async (r) => {
    const { validateRequest, validateRequestWithBody } = require("twilio");
    const signature = r.headers["x-twilio-signature"];
    if (r.headers["content-type"]?.includes("json")) {
      need(validateRequestWithBody(r.secret, signature, r.url, r.body.toString()));
      return;
    }
    need(validateRequest(r.secret, signature, r.url, Object.fromEntries(new URLSearchParams(r.body.toString()))));
  },
  stripe: async (r) => {
    new (require("stripe"))("sk_test").webhooks.constructEvent(r.body, r.headers["stripe-signature"], r.secret);
  },
  svix: async (r) => {
    new (require("svix").Webhook)(r.secret).verify(r.body.toString(), r.headers);
  },
  "standard-webhooks": async (r) => {
    new (require("standardwebhooks").Webhook)(r.secret).verify(r.body.toString(), r.headers);
  },
  sns: async (r) => {
    // The SDK fetches the certificate; here it gets the given one.
    https.get = (url, done) => {
      const res = new PassThrough();
      res.statusCode = 200;
      done(res);
      res.end(r.keys[url.href ?? url]);
      return res;
    };
    const Validator = require("sns-validator");
    await new Promise((ok, fail) => new Validator().validate(r.body.toString(), (e) => (e ? fail(e) : ok())));
  },
};

const sign = {
  github: async (r) => {
    const { sign } = await octokit();
    return { "X-Hub-Signature-256": await sign(r.secret, r.body.toString()), "X-GitHub-Delivery": r.id, "X-GitHub-Event": "push" };
  },
  stripe: async (r) => ({
    "Stripe-Signature": new (require("stripe"))("sk_test").webhooks.generateTestHeaderString({
      payload: r.body.toString(), secret: r.secret, timestamp: r.at,
    }),
  }),
  svix: async (r) => ({
    "svix-id": r.id, "svix-timestamp": String(r.at),
    "svix-signature": new (require("svix").Webhook)(r.secret).sign(r.id, new Date(r.at * 1000), r.body.toString()),
  }),
  "standard-webhooks": async (r) => ({
    "webhook-id": r.id, "webhook-timestamp": String(r.at),
    "webhook-signature": new (require("standardwebhooks").Webhook)(r.secret).sign(r.id, new Date(r.at * 1000), r.body.toString()),
  }),
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  let said;
  try {
    const r = JSON.parse(line);
    r.body = Buffer.from(r.body, "base64");
    r.headers = Object.fromEntries(Object.entries(r.headers ?? {}).map(([k, v]) => [k.toLowerCase(), v]));
    const body = r.body.toString("base64");
    said = r.op === "sign" ? { ok: true, headers: await sign[r.provider](r), body } : (await verify[r.provider](r), { ok: true });
  } catch (e) {
    said = { ok: false, error: String(e) };
  }
  process.stdout.write(JSON.stringify(said) + "\n");
}

// A web page of somebody else, in a real Chromium, and what it tries against a gateway.
//   node page.mjs CHROMIUM GATEWAY ELSEWHERE  ->  one JSON object: what each attempt was answered with
// GATEWAY is the gateway's URL; ELSEWHERE a URL of another server of this machine, whose page is the attacker's.
import { chromium } from "playwright-core";

const [executablePath, gateway, elsewhere] = process.argv.slice(2);
const port = new URL(gateway).port;
const rebound = `http://evil.example:${port}`; // a name that the attacker has pointed at the gateway
const load = "/v2/repository/models/iris/load";
const config = JSON.stringify({ parameters: { config: JSON.stringify({ uri: "/tmp/evil", env: ["SECRET"] }) } });

const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    "--host-resolver-rules=MAP evil.example 127.0.0.1",
    "--disable-features=LocalNetworkAccessChecks", // as in every browser but the newest
  ],
});
const context = await browser.newContext();
const answered = [];
context.on("response", (response) => {
  const request = response.request();
  if (request.url().includes(":" + port) && !request.url().endsWith("/page"))
    answered.push([request.method(), new URL(request.url()).pathname, response.status()]);
});
const html = { contentType: "text/html", body: "<!doctype html><title>page</title>" };
await context.route(elsewhere + "/page", (route) => route.fulfill(html));
await context.route(rebound + "/page", (route) => route.fulfill(html));
await context.route(gateway + "/page", (route) => route.fulfill(html));

async function attempts(origin, target) {
  const page = await context.newPage();
  await page.goto(origin + "/page");
  answered.length = 0;
  await page.evaluate(
    async ([target, load, config]) => {
      const ask = (path, options) => fetch(target + path, options).then((answer) => answer.text(), () => "");
      for (const path of [load, load.replace("/load", "/unload"), "/admin/reload", "/admin/mlflow-webhook"]) {
        for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
          await ask(path, { method: "POST", mode: "no-cors", body: config, headers: { "Content-Type": type } });
        await ask(path, { method: "POST", body: config });
        await ask(path, { method: "POST", body: config, headers: { "Content-Type": "application/json" } });
        await ask(path, { method: "POST", mode: "no-cors", credentials: "include", referrerPolicy: "no-referrer" });
        await ask(path, { method: "POST", mode: "no-cors", keepalive: true });
      }
      await ask("/status", { mode: "no-cors" });
      navigator.sendBeacon(target + load, config);
      const submit = (frame) =>
        new Promise((done) => {
          document.body.append(frame);
          frame.onload = done;
        });
      for (const sandbox of [null, "allow-forms allow-scripts"]) {
        const frame = document.createElement("iframe");
        if (sandbox) frame.sandbox = sandbox; // its origin is null
        frame.srcdoc = `<form id=f method=post enctype=text/plain action="${target + load}"><input name=a value=b></form>
          <script>f.submit()</script>`;
        await submit(frame);
      }
    },
    [target, load, config],
  );
  await page.waitForLoadState("networkidle");
  await page.close();
  return answered.splice(0);
}

const found = {
  cross: await attempts(elsewhere, gateway),
  rebound: await attempts(rebound, rebound),
  own: [],
};
const page = await context.newPage();
await page.goto(gateway + "/page");
answered.length = 0;
found.own = await page.evaluate(async (load) => {
  return [(await fetch(load, { method: "POST" })).status, (await fetch("/status")).status];
}, load);
console.log(JSON.stringify(found));
await browser.close();

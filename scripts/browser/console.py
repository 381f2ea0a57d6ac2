"""Walks through the console of a real Catchment in a real browser, as people with different roles do.

usage: console.py CATCHMENT [--screenshots FOLDER]        (by `make test-console`; needs chromium and psql)
"""

import argparse
import os
import re
import shutil
import sys
import tempfile
import urllib.parse

from node import PASSWORD, POLYGLOT, ROLES, Node
from PIL import Image
from playwright.sync_api import sync_playwright

PAGES = [
    "/console/", "/console/overview", "/console/overview?span=24h", "/console/dead-letters", "/console/operations", "/console/replay",
    "/console/jobs", "/console/sources", "/console/audit", "/console/actions",
]
PHONE, SMALL, DESK = {"width": 390, "height": 844}, {"width": 320, "height": 568}, {"width": 1280, "height": 800}

# The least contrast of a text with what lies behind it, and where: an element with text of its own, opaque ancestors below.
CONTRAST = """() => {
  const rgb = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = ([r, g, b]) => { const f = [r, g, b].map((v) => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; }); return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  let worst = [99, ''];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility() || e.closest('svg') || e.matches('.sr, .skip, option')) continue;
    let under = e, ground = [255, 255, 255, 0];
    while (under && ground[3] < 1) { ground = rgb(getComputedStyle(under).backgroundColor); under = under.parentElement; }
    const a = light(rgb(getComputedStyle(e).color)), b = light(ground);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < worst[0]) worst = [ratio, e.outerHTML.slice(0, 120)];
  }
  return worst;
}"""


def event_path(source, event):
    return "/console/event?" + urllib.parse.urlencode({"source": source, "id": event})


def has(page, *texts):
    text = page.locator("main").inner_text()
    for want in texts:
        assert want in text, f"{page.url} does not say {want!r}:\n{text[:2000]}"


class Visitor:
    """One browser window of one person. What goes wrong in it is kept, and makes the test fail."""

    def __init__(self, browser, node, who, **options):
        login = {"http_credentials": {"username": who, "password": PASSWORD}} if who else {}
        self.context = browser.new_context(base_url=f"http://{node.ops}", viewport=options.pop("viewport", DESK), **login, **options)
        self.context.add_init_script("window.alert = window.confirm = window.prompt = () => { console.error('a script of others ran'); }")
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.wrong = []
        self.page.on("dialog", lambda d: (self.wrong.append("dialog: " + d.message), d.dismiss()))
        self.page.on("pageerror", lambda e: self.wrong.append(f"{self.page.url}: error: {e}"))
        self.page.on("console", lambda m: m.type in ("error", "warning") and self.wrong.append(f"{self.page.url}: {m.text}"))

    def go(self, path, status=200):
        answer = self.page.goto(path)
        assert answer.status == status, f"{path}: {answer.status}, want {status}"
        if status == 200:
            self.fits()
        return self.page

    def fits(self):
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= self.page.viewport_size["width"], f"{self.page.url} is {wide} wide"

    def close(self):
        self.context.close()
        assert not self.wrong, "\n".join(self.wrong)


def orders(node):
    node.tool("send", "stripe", "--count", "150", "--duplicates", "10%", "--rate", "50", "--wait", "2m")
    node.sql("ALTER TABLE orders ADD CONSTRAINT small CHECK (status <> 'new' OR amount < 1000) NOT VALID")
    for i in range(1, 4):
        assert node.post({"id": f"order-{i}", "kind": "order", "amount": 1000 * i}) == 200
    assert node.post({"id": "order-0", "kind": "order", "amount": 7}) == 200
    assert node.post({"id": "order-0", "kind": "order", "amount": 8}) == 200  # a conflict
    assert node.post({"id": "number", "kind": "other", "number": "no number"}) == 200
    node.until("dead letters are there", lambda: node.sql("SELECT count(*) FROM catchment.dead_letters") == "4")
    node.until("the conflict is there", lambda: node.sql("SELECT count(*) FROM catchment.conflicts") == "1")


def search_and_event(v):
    page = v.go("/console/")
    assert page.locator("#events tbody tr").count() == 50
    page.get_by_role("link", name="Older").click()
    assert page.locator("#events tbody tr").count() == 50
    page.get_by_role("link", name="Newest").click()
    page.get_by_label("Source").select_option("partner")
    page.get_by_role("button", name="Search").click()
    assert page.locator("#events tbody tr").count() == 5
    page.get_by_role("link", name="Clear").click()
    page.get_by_label("Event ID").fill("order-0")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("link", name="order-0").click()
    has(page, "Received and verified", "by secret 2026-q4", "Stored", "small-orders succeeded", "Received with another body", "partition", "catchment.conflicts")
    page.locator("[data-archived]:visible").wait_for()  # the segment is closed within seconds
    has(page, "Acknowledged by Kafka", "events/date=", "row ")
    assert '"amount"' not in page.content()
    page.get_by_role("button", name="Show headers and body").click()
    has(page, '"amount": 7', '"amount": 8', "Another body under this ID", "x-signature", "What small-orders returned")
    v.fits()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the body").click()
    assert open(download.value.path(), "rb").read() == b'{"id": "order-0", "kind": "order", "amount": 7}'


def live(v, node):
    page = v.go("/console/")
    page.get_by_role("button", name="Live").click()
    page.get_by_text("Live: new events appear at the top.").wait_for(state="attached")
    node.post({"id": "watched", "kind": "other"})
    page.locator("#events tbody tr.fresh", has_text="watched").wait_for()


def redrive(v, node):
    page = v.go("/console/dead-letters")
    assert page.locator("tbody tr").count() == 4
    page.get_by_label("Operation").select_option("small-orders")
    page.get_by_role("button", name="Search").click()
    assert page.locator("tbody tr").count() == 3
    page.locator("tbody a").first.click()
    has(page, "violates check constraint", "small-orders", "offset")
    page.go_back()
    node.sql("ALTER TABLE orders DROP CONSTRAINT small")
    page.get_by_role("button", name="Try all that fit once more").click()
    has(page, "Try 3 dead letters once more?")
    assert node.sql("SELECT count(*) FROM catchment.jobs") == "0"
    page.get_by_label("Attempts a second").fill("20")
    page.get_by_label("Reason, for catchment.actions").fill("the constraint is gone")
    form = page.evaluate("Object.fromEntries(new FormData(document.querySelector('form.fields')))")
    page.get_by_role("button", name="Try 3 once more").click()
    page.locator(".tag.done").wait_for()  # the page follows the job by itself
    has(page, "3 attempts made of 3", "the constraint is gone", "20 a second")
    again = v.context.request.post("/console/dead-letters/redrive/start", form=form)  # a second time, as an impatient hand does
    assert again.url == page.url, again.url
    assert node.sql("SELECT count(*) FROM catchment.jobs") == "1"
    assert node.sql("SELECT count(*) FROM catchment.dead_letters") == "1"
    v.go("/console/jobs")
    has(page, "redrive", "small-orders", "3 of 3")


def replay(v, node):
    page = v.go("/console/operations")
    has(page, "order-status", "small-orders", "active")
    card = page.locator("article", has_text="small-orders")
    card.get_by_role("link", name="Replay").click()
    page.get_by_label("again where it had its effect").check()
    page.get_by_label("Event IDs").fill("order-1 order-2")
    page.get_by_label("Reason").fill("to see it again")
    page.get_by_role("button", name="Dry run").click()
    has(page, "Dry run of the first 2", "@amount", "2000", "for 2 events, once more")
    page.locator("summary", has_text="rows by").first.click()
    page.get_by_text('"again"').first.wait_for()
    assert node.sql("SELECT status FROM orders WHERE id = 'order-1'") == "new", "a dry run leaves nothing"
    page.get_by_role("button", name="Run it for 2").click()
    page.locator(".tag.done").wait_for()
    assert node.sql("SELECT status FROM orders WHERE id = 'order-1'") == "again"
    v.go("/console/operations")
    page.get_by_label("Why small-orders is paused").fill("a pause")
    card.get_by_role("button", name="Pause").click()
    has(page, "Paused by ada", "a pause")
    page.locator("article", has_text="small-orders").get_by_role("button", name="Resume").click()
    assert node.sql("SELECT count(*) FROM catchment.paused_operations") == "0"


def audit(v):
    page = v.go("/console/audit")
    page.get_by_label("Reason").fill("every week")
    page.get_by_role("button", name="Audit now").click()
    page.locator("h2 .tag.good").wait_for()
    has(page, "whole: every delivery", "every week")


def overview(v):
    page = v.go("/console/overview")
    has(page, "Postgres", "processor", "archiver")
    assert page.locator("figure svg").count() == 3
    assert page.locator("figure rect").count() > 0 and page.locator("figure polyline").count() > 0
    page = v.go("/console/sources")
    has(page, "partner", "2026-q4", "Last accepted", "accepted 1")
    page = v.go("/console/actions")
    has(page, "dead-letters redrive", "replay dry-run", "events show", "events download", "operations pause", "audit", "the constraint is gone")


def roles(browser, node):
    """Every page for every role: denied unless it is granted."""
    letter = node.sql("SELECT id FROM catchment.dead_letters LIMIT 1")
    view, payload, operate = "view-metadata", "view-payload", "operate"
    event = {"source": "partner", "id": "order-0"}
    requests = [("GET", path, {}, operate if path == "/console/replay" else view) for path in PAGES] + [
        ("GET", event_path("partner", "order-0"), {}, view),
        ("GET", "/console/event/places?" + urllib.parse.urlencode(event), {}, view),
        ("GET", f"/console/dead-letter?id={letter}", {}, view),
        ("GET", "/console/job?id=1", {}, view),
        ("GET", "/console/job/state?id=1", {}, view),
        ("GET", "/console/audit/state", {}, view),
        ("POST", "/console/event/payload", event, payload),
        ("POST", "/console/event/body", event, payload),
        ("POST", "/console/dead-letter/payload", {"id": letter}, payload),
        ("POST", "/console/dead-letters/redrive", {"letter": letter}, operate),
        ("POST", "/console/dead-letters/redrive/start", {"letter": letter}, operate),  # without a question: 400
        ("POST", "/console/replay/try", {"operation": "numbers", "id": "nothing"}, operate),
        ("POST", "/console/replay/start", {"operation": "numbers"}, operate),
        ("POST", "/console/operations", {"operation": "numbers", "do": "resume"}, operate),
        ("POST", "/console/job/cancel", {"id": "1"}, operate),
        ("POST", "/console/audit", {"since": "1s"}, operate),
    ]
    for who in ["", *ROLES]:
        v = Visitor(browser, node, who)
        for method, path, form, need in requests:
            ask = v.context.request.get if method == "GET" else v.context.request.post
            answer = ask(path, max_redirects=0, **({"form": form} if method == "POST" else {}))
            allowed = who and need in ROLES[who] and view in ROLES[who]
            want = {200, 303, 400} if allowed else {403} if who else {401}
            assert answer.status in want, f"{who or 'nobody known'} {method} {path}: {answer.status}, want {want}"
            if not allowed:
                assert "order-0" not in answer.text()
            if method == "POST":  # from another site's page
                assert ask(path, max_redirects=0, form=form, headers={"Origin": "https://evil.example"}).status == (403 if who else 401)
            for name, value in {"content-security-policy": "default-src 'none'", "x-content-type-options": "nosniff"}.items():
                assert value in answer.headers[name], path
        if who == "viewer":
            page = v.go(event_path("partner", "order-0"))
            assert page.get_by_role("button", name="Show headers and body").count() == 0
            v.go("/console/dead-letters")
            assert page.get_by_text("once more").count() == 0
        v.context.close()
    node.until("the audit is over", lambda: node.sql("SELECT count(*) FROM catchment.actions WHERE command = 'audit' AND actor = 'operator'") == "1")


def hostile(browser, node):
    """What others wrote, as body, ID, type, header, entity, error and source, is text on every page."""
    header = {"X-Evil": POLYGLOT}
    body = {"id": POLYGLOT, "kind": POLYGLOT, "number": POLYGLOT, "text": "</pre><script>alert(1)</script>"}
    assert node.post(body, header) == 200
    node.until("the polyglot is dead", lambda: node.sql("SELECT count(*) FROM catchment.dead_letters WHERE event_id = :1", POLYGLOT) == "1")
    node.sql("INSERT INTO catchment.identities SELECT :1, event_id, body_sha256, first_seen_at, delivery_id FROM catchment.identities WHERE event_id = :1", POLYGLOT)
    columns = "event_id, type, event_time, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body, body_sha256, delivery_id, delivery_index, topic, topic_id, partition, \"offset\", leader_epoch, note"
    node.sql(f"INSERT INTO catchment.bodies (source, {columns}) SELECT :1, {columns.replace('note', ':1')} FROM catchment.bodies WHERE event_id = :1", POLYGLOT)
    node.sql("INSERT INTO catchment.actions (actor, command, reason, selection, affected) VALUES (:1, :1, :1, jsonb_build_object('x', :1::text), 1)", POLYGLOT)
    v = Visitor(browser, node, "ada")
    page = v.go("/console/?source=partner")
    assert page.locator("td[data-label=Event] a bdi", has_text="jaVasCript").first.text_content() == POLYGLOT
    assert page.locator("td[data-label=Type] bdi", has_text="jaVasCript").first.text_content() == POLYGLOT
    page = v.go("/console/events?" + urllib.parse.urlencode({"source": POLYGLOT, "type": POLYGLOT, "entity": ""}))
    assert page.locator("td[data-label=Source] bdi").first.text_content() == POLYGLOT
    assert page.get_by_label("Type").input_value() == POLYGLOT
    for source in ("partner", POLYGLOT):
        page = v.go(event_path(source, POLYGLOT))
        assert page.locator("h1 bdi").text_content() == POLYGLOT
        page.get_by_role("button", name="Show headers and body").click()
        assert POLYGLOT in page.locator("section#body").text_content()
        assert page.locator("tr", has_text="x-evil").locator("td bdi").text_content() == POLYGLOT
        raw = page.get_by_label("Body as it came")
        assert "</pre><script>alert(1)</script>" in raw.text_content()
    page = v.go(event_path("partner", POLYGLOT))
    assert POLYGLOT in page.locator("article", has_text="numbers").text_content(), "the error's text"
    page.get_by_role("link", name="Replay numbers").click()
    assert page.get_by_label("Event IDs").input_value() == POLYGLOT
    page = v.go("/console/dead-letters?failure=" + urllib.parse.quote(POLYGLOT))
    page = v.go("/console/dead-letters")
    assert POLYGLOT in page.locator("table").text_content()
    page.get_by_role("link", name=re.compile(r"^\d+$")).first.click()
    assert POLYGLOT in page.locator("pre").text_content()
    page = v.go("/console/actions")
    assert page.locator("td[data-label=Who] bdi", has_text="jaVasCript").first.text_content() == POLYGLOT
    for path in PAGES:
        v.go(path)
        v.page.wait_for_load_state()
    v.close()


def small_screens(browser, node):
    for viewport in (PHONE, SMALL):
        for theme in ("light", "dark"):
            v = Visitor(browser, node, "ada", viewport=viewport, color_scheme=theme, has_touch=True, is_mobile=True)
            for path in [*PAGES, event_path("partner", "order-0"), event_path("partner", POLYGLOT), "/console/job?id=1", "/console/dead-letter?id=" + node.sql("SELECT max(id) FROM catchment.dead_letters")]:
                v.go(path)
            v.close()


def themes(browser, node):
    grounds = set()
    for theme in ("light", "dark"):
        v = Visitor(browser, node, "ada", color_scheme=theme)
        for path in [*PAGES, event_path("partner", "order-0"), "/console/job?id=1"]:
            page = v.go(path)
            if "event?" in path:
                with page.expect_navigation():
                    page.get_by_role("button", name="Show headers and body").click()
            ratio, where = page.evaluate(CONTRAST)
            assert ratio >= 4.5, f"{theme} {path}: a contrast of {ratio:.2f}: {where}"
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        v.close()
    assert len(grounds) == 2, "dark is as light is"


def keyboard(browser, node):
    """From the list to a payload without a mouse."""
    v = Visitor(browser, node, "ada")
    page = v.go("/console/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("/")
    page.keyboard.type("order-0")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    tab_to(page, "order-0")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    tab_to(page, "Show headers and body")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "one sees where one is"
    with page.expect_navigation():
        page.keyboard.press("Enter")
    has(page, '"amount": 7')
    v.close()


def tab_to(page, text):
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == text:
            return
    raise AssertionError(f"no Tab leads to {text}")


def screenshots(browser, node, folder):
    os.makedirs(folder, exist_ok=True)
    shots = [
        ("events", "light", DESK, "/console/"), ("event", "light", DESK, event_path("partner", "order-0")), ("overview", "dark", DESK, "/console/overview"),
        ("replay", "light", DESK, "/console/replay?operation=small-orders&id=order-1"), ("dead-letters", "dark", DESK, "/console/dead-letters"), ("phone", "dark", PHONE, event_path("partner", "order-0")),
    ]
    for name, theme, viewport, path in shots:
        v = Visitor(browser, node, "ada", viewport=viewport, color_scheme=theme, reduced_motion="reduce")
        page = v.go(path)
        if name == "replay":
            page.get_by_label("again where it had its effect").check()
            page.get_by_role("button", name="Dry run").click()
            page.locator("summary", has_text="rows by").first.click()
        if name in ("event", "phone"):
            page.locator("[data-archived]:visible").wait_for()
        if name == "overview":
            page.locator("#charts").evaluate("e => e.scrollIntoView()")
        file = os.path.join(folder, name + ".png")
        page.screenshot(path=file)
        Image.open(file).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
        v.close()
        assert os.path.getsize(file) <= 100_000, f"{file} has {os.path.getsize(file)} bytes"


def walk(node, browser, folder):
    steps = [("data", lambda: orders(node))]
    ada = Visitor(browser, node, "ada", accept_downloads=True)
    steps += [
        ("search and event", lambda: search_and_event(ada)), ("live", lambda: live(ada, node)), ("redrive", lambda: redrive(ada, node)),
        ("replay, pause", lambda: replay(ada, node)), ("audit", lambda: audit(ada)), ("overview, sources, actions", lambda: overview(ada)), ("nothing went wrong", ada.close),
        ("keyboard", lambda: keyboard(browser, node)), ("dark and light", lambda: themes(browser, node)), ("roles", lambda: roles(browser, node)),
    ]
    if folder:
        steps.append(("screenshots", lambda: screenshots(browser, node, folder)))
    steps += [("hostile texts", lambda: hostile(browser, node)), ("small screens", lambda: small_screens(browser, node))]
    for name, step in steps:
        print("console:", name, flush=True)
        step()


def main():
    args = argparse.ArgumentParser()
    args.add_argument("program")
    args.add_argument("--screenshots")
    args = args.parse_args()
    folder = tempfile.mkdtemp(prefix="catchment-console.")
    node = Node(args.program, folder)
    try:
        node.start()
        node.stop()  # the first start has written the configuration
        node.configure()
        node.start()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            walk(node, browser, args.screenshots)
            browser.close()
    except BaseException:
        sys.stderr.write(open(node.log.name).read()[-2000:])
        raise
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("console: all is as it should be")


if __name__ == "__main__":
    main()

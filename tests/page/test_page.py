"""The page in a browser: what it shows, how it looks, what it does when nobody answers."""

from __future__ import annotations

import os
import re
import signal
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.page.chromium import Tab
from tests.page.conftest import COMPLETE, EVIL, LIVE, QUEUED, free_port
from tests.page.png import decode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.page.chromium import Browser
    from tests.page.conftest import Site

AUDIT = Path(__file__).with_name("audit.js").read_text()
SCREENS = {"desktop": (1280, 900), "phone": (375, 800)}
BACKS = {"light": b"\xff\xff\xff", "dark": b"\x14\x18\x1c"}
SYMBOLS = {"backoff": "↻", "starting": "◔", "ready": "●", "draining": "◑", "killing": "✕"}

EVENTS = "document.getElementById('events').innerText"
STALE = "document.getElementById('freshness').textContent.startsWith('Not live') && document.body.innerText"


def row(section: str, name: str) -> str:
    """JavaScript for the text of a line of a table, once it is there."""
    rows = f"[...document.querySelectorAll('#{section} tr')]"
    return f"{rows}.find((row) => row.firstElementChild.textContent === '{name}').innerText"


def cells(pool: str) -> str:
    """JavaScript for the texts of a pool's workers."""
    return f"[...document.querySelectorAll('ul[aria-label=\"workers of {pool}\"] li')].map((cell) => cell.innerText)"


def audit(tab: Tab) -> tuple[list[str], list[str]]:
    """The texts that are seen, and what is wrong with them."""
    found = tab.evaluate(f"({AUDIT})({{contrast: 4.5, size: 12}})")
    return found["texts"], found["problems"]


def keep(tab: Tab, path: Path) -> None:
    """Keep a picture of the page for people, when it is one of the page."""
    data = tab.picture()
    path.write_bytes(data)
    picture = decode(data)
    width, scheme = tab.evaluate("[innerWidth, matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light']")
    assert picture.width == width
    assert picture.height >= 800
    assert len(picture.colours) > 50
    assert picture.colours.most_common(1)[0][0] == BACKS[scheme]


@pytest.mark.parametrize("scheme", BACKS)
@pytest.mark.parametrize("screen", SCREENS)
def test_it_can_be_read(page: Tab, artifacts: Path, screen: str, scheme: str) -> None:
    page.show(*SCREENS[screen], scheme)
    page.wait_for(f"{row('pools', 'broken')}.includes('backoff')")  # most of the time
    texts, problems = audit(page)
    assert {"running", "backoff", "ready", EVIL, "Recent events"} <= set(texts)
    assert not problems
    keep(page, artifacts / f"{screen}-{scheme}.png")


def test_an_unreadable_text_is_found(tab: Tab, site: Site) -> None:
    """Otherwise the test above could say anything."""
    tab.show(*SCREENS["phone"])
    tab.open(site.url)
    tab.wait_for(COMPLETE)
    tab.evaluate("""{
        const line = document.getElementById("about");
        line.style.cssText = "color: #999; font-size: 11px; white-space: nowrap; width: 500px";
    }""")
    problems = " ".join(audit(tab)[1])
    for part in ("a contrast of 2.", "11px", "of 375"):
        assert part in problems


def test_it_shows_what_the_master_says(page: Tab, site: Site) -> None:
    for name in ("web", "calm"):
        pool = site.live.pool(name)
        shown = page.evaluate(row("pools", name))
        for part in (pool["state"], f"{pool['ready']} of {pool['desired']}", f"\t{pool['generation']}\t"):
            assert part in shown
    page.wait_for(f"/backoff\\s+0 of 1\\b/.test({row('pools', 'broken')})")
    assert re.match(r"[56]/6 ready", page.evaluate("document.title"))
    web = page.evaluate(cells("web"))
    for cell, pid in zip(web, site.live.pids("web"), strict=True):
        assert re.search(r"ready\s+up \d", cell)
        assert re.search(r"beat \d\.\d s ago", cell)
        assert re.search(r"[\d.]+ MiB", cell)
        assert f"pid {pid}" in cell
    assert not re.search("beat", "".join(page.evaluate(cells("calm"))))
    what = r"/worker_exited\s+broken.0\s+reason: error, error: cannot execute/"
    page.wait_for(f"{what}.test({EVENTS})")


def test_it_counts_connections_that_wait(page: Tab) -> None:
    assert f"{QUEUED} of at most 16" in page.evaluate(row("sockets", "http"))
    assert page.evaluate("document.querySelector('#sockets meter').value") == QUEUED


def test_hostile_text_is_text(page: Tab) -> None:
    assert EVIL in page.evaluate(cells("web"))[0]
    assert "<img src=x" in page.evaluate(row("pools", "broken"))
    page.wait_for(f"{EVENTS}.includes('<img src=x')")
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert page.evaluate("typeof hacked") == "undefined"


def test_a_rollout_is_shown_while_it_lasts(page: Tab, site: Site, artifacts: Path) -> None:
    generation = site.live.pool()["generation"]
    site.gate.touch()
    try:
        assert site.live.run("restart", "web")[0] == 0
        page.wait_for(f"{row('pools', 'web')}.includes('replacing: 0 of 3, generation {generation + 1}')")
        page.wait_for(f"{cells('web')}.find((text) => /^◔ \\d+\\s+starting/.test(text))")
        assert page.evaluate("document.querySelector('#pools progress').max") == 3
        assert not audit(page)[1]
        keep(page, artifacts / "rollout.png")
    finally:
        site.open_gate()
    site.live.settled(size=3)
    page.wait_for("!document.querySelector('#pools progress')")
    assert f"\t{generation + 1}\t" in page.evaluate(row("pools", "web"))
    page.wait_for(f"{EVENTS}.includes('rollout_completed')")


def test_it_goes_on_when_the_observer_is_killed(page: Tab, site: Site) -> None:
    pid = site.seen.process()
    os.kill(pid, signal.SIGKILL)
    assert site.seen.process(other_than=pid)
    page.wait_for(f"/observer.0\\s+reason: signal, pid: {pid}, signal: KILL/.test({EVENTS})")
    page.wait_for(LIVE)


def test_it_says_that_the_master_does_not_answer_until_it_does(page: Tab, site: Site, artifacts: Path) -> None:
    site.master.send(signal.SIGSTOP)
    try:
        said = page.wait_for(STALE)
        assert "cannot ask the master: no answer within 1 s" in said
        assert re.search(r"These figures are of \d\d:\d\d:\d\d; trying again", said)
        for scheme in BACKS:
            page.show(scheme=scheme)
            assert not audit(page)[1]
            keep(page, artifacts / f"lost-{scheme}.png")
    finally:
        site.master.send(signal.SIGCONT)
    page.wait_for(LIVE)


def test_it_comes_back_with_a_master_that_was_started_again(tab: Tab, begin: Callable[[str], Site]) -> None:
    config = f"""
        observer: {{bind: "127.0.0.1:{free_port()}"}}
        pools: {{web: {{command: [sleep, "1000"], ready: {{after: 30ms}}}}}}
    """
    first = begin(config)
    tab.open(first.url)
    tab.wait_for(f"{LIVE} && document.getElementById('about').innerText.includes('pid {first.master.pid},')")
    tab.evaluate("window.untouched = true")
    assert first.master.stop()[0] == 0
    assert "connection lost" in tab.wait_for(STALE)
    second = begin(config)
    tab.wait_for(f"{LIVE} && document.getElementById('about').innerText.includes('pid {second.master.pid},')")
    assert tab.evaluate("untouched")


def test_its_policy_forbids_all_else_and_the_browser_says_so(browser: Browser, site: Site) -> None:
    """Otherwise there would be no complaint about anything in all the tests here."""
    outside = f"http://127.0.0.1:{free_port()}/"
    attempts = (
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'hacked = 1'}))",
        "document.body.setAttribute('onclick', 'hacked = 1'); document.body.click()",
        f"document.body.append(Object.assign(document.createElement('img'), {{src: '{outside}'}}))",
        f"document.body.append(Object.assign(document.createElement('iframe'), {{src: '{outside}'}}))",
        f"fetch('{outside}').catch(() => {{}})",
    )
    with Tab(browser) as tab:
        tab.open(site.url)
        tab.wait_for(LIVE)
        assert not tab.complaints
        tab.evaluate("document.addEventListener('securitypolicyviolation', () => { window.told = true; })")
        for attempt in attempts:
            tab.complaints.clear()
            tab.evaluate(f"told = false; {attempt}; 0")
            tab.wait_for("told")
            assert "Content Security Policy" in " ".join(tab.complaints)
        assert tab.evaluate("typeof hacked") == "undefined"


@pytest.mark.parametrize("screen", SCREENS)
def test_it_has_landmarks_headings_and_tables_for_those_who_do_not_see_it(page: Tab, screen: str) -> None:
    page.show(*SCREENS[screen])
    tree = page.tree()
    named = {(role, name) for role, name, _ in tree}
    roles = {role for role, _ in named}
    assert {"banner", "main", "status"} <= roles
    assert {("region", name) for name in ("Pools", "Workers", "Sockets", "Recent events")} <= named
    assert {("list", "workers of web"), ("list", "workers by state"), ("columnheader", "last error")} <= named
    assert {("rowheader", "web"), ("rowheader", "http"), ("meter", "3 of 3")} <= named
    levels = [properties["level"] for role, _, properties in tree if role == "heading"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_no_state_is_told_by_its_colour_alone(page: Tab) -> None:
    shown = page.wait_for("""(() => {
        const cells = [...document.querySelectorAll(".cells li")].map((cell) => [cell.className, cell.innerText]);
        return cells.some(([state]) => state === "backoff") && cells;
    })()""")
    assert {state for state, _ in shown} >= {"ready", "backoff"}
    for state, text in shown:
        assert re.match(rf"{SYMBOLS[state]} \d+\s+{state}\b", text)
    legend = page.evaluate("[...document.querySelectorAll('#legend li')].map((one) => one.innerText)")
    assert [re.sub(r" \d+$", "", one) for one in legend] == [f"{SYMBOLS[state]} {state}" for state in SYMBOLS]


def test_it_refers_to_the_figures_where_there_are_no_scripts(tab: Tab, site: Site) -> None:
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(site.url)
    assert ("link", "/status") in {(role, name) for role, name, _ in tab.tree()}

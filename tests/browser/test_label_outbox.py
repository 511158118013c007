"""What is said on the work page travels behind it, outlives server, page and connection, and counts once."""

from __future__ import annotations

import statistics

from label_desk import SAID, clean, feedback, item, rows_of, sent, shown_points

pytest_plugins = ["label_fixtures"]

PAINTED = """() => {
  const before = document.querySelector('.item');
  const painted = new Promise((good) => {
    new MutationObserver((_, watch) => {
      if (document.querySelector('.item') === before) return;
      watch.disconnect();
      requestAnimationFrame(() => { // what is sent from here arrives after the frame
        const channel = new MessageChannel();
        channel.port1.onmessage = () => good(performance.now());
        channel.port2.postMessage(0);
      });
    }).observe(document.getElementById('sheet'), { childList: true });
  });
  const once = { capture: true, once: true };
  const pressed = new Promise((good) => addEventListener('keydown', (event) => good(event.timeStamp), once));
  window.measured = Promise.all([pressed, painted]).then(([from, to]) => to - from);
}"""


def test_answers_outlive_a_restart_of_the_server_and_count_once(come, own_desk, who):
    desk = own_desk
    page = come("/label/desk/plain", at=desk)
    before = item(page)
    page.keyboard.press("3")
    desk.stop()
    page.keyboard.press("Enter")  # the next item is there already
    before = item(page, other_than=before)
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    page.locator("#line.down", has_text="2 waiting").wait_for()
    page.locator("#sheet", has_text="The next item comes when there is a connection.").wait_for()
    assert feedback(desk.store, "plain", who) == []
    desk.start()
    page.evaluate("() => dispatchEvent(new Event('online'))")
    sent(page)
    item(page, other_than=before)
    rows = rows_of(desk, who, "plain", 2)
    assert sorted(shown_points(row) for row in rows) == [3, 6]
    assert all(not url.startswith("http") or url.startswith(desk.url) for url in page.requests)


def test_answers_outlive_the_page_itself(come, desk, who):
    page = come("/label/desk/plain")
    item(page)
    page.keyboard.press("3")
    page.context.set_offline(True)
    page.keyboard.press("Enter")
    page.locator("#line.down", has_text="1 waiting").wait_for()
    other = page.context.new_page()
    page.close()  # nobody is asked: a closed browser does not ask either
    page.context.set_offline(False)
    other.goto(f"{desk.url}/label/desk/plain")
    (row,) = rows_of(desk, who, "plain", 1)
    assert shown_points(row) == 3


ABORT = """() => {
  const put = IDBObjectStore.prototype.put;
  IDBObjectStore.prototype.put = function (...row) {
    const request = put.apply(this, row);
    request.addEventListener('success', () => this.transaction.abort()); // as where the disk is full after all
    return request;
  };
}"""


def test_an_answer_that_the_browser_took_back_waits_in_the_page_which_says_so(come, desk, who):
    page = come("/label/desk/plain")
    before = item(page)
    page.evaluate(ABORT)
    page.context.set_offline(True)
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    item(page, other_than=before)
    page.locator("#line", has_text="1 waiting").wait_for()
    page.locator("#line", has_text="Do not close this page: this browser could not keep what you said").wait_for()
    assert feedback(desk.store, "plain", who) == []
    page.context.set_offline(False)
    page.evaluate("() => dispatchEvent(new Event('online'))")
    (row,) = rows_of(desk, who, "plain", 1)
    assert shown_points(row) == 3
    sent(page)
    page.locator("#line").wait_for(state="hidden")


def test_an_answer_that_the_browser_does_not_let_go_of_is_sent_once(come, desk, who):
    page = come("/label/desk/plain")
    item(page)
    page.evaluate(ABORT.replace(".put", ".delete"))
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    rows_of(desk, who, "plain", 1)
    sent(page)
    page.evaluate("() => dispatchEvent(new Event('online'))")
    page.wait_for_timeout(500)
    assert page.locator("#refused").is_hidden()
    assert len([url for url in page.requests if url.endswith("/api/submit")]) == 1


def test_leaving_with_answers_that_wait_is_warned_of(come, desk, who):
    page = come("/label/desk/plain")
    item(page)
    page.keyboard.press("3")
    page.context.set_offline(True)
    page.keyboard.press("Enter")
    page.locator("#line.down").wait_for()
    stays = "() => !dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    assert page.evaluate(stays)
    page.context.set_offline(False)
    page.evaluate("() => dispatchEvent(new Event('online'))")
    sent(page)
    rows_of(desk, who, "plain", 1)
    page.wait_for_function(f"() => !({stays})()")


def test_what_the_server_refuses_is_shown_and_kept(come, desk, who):
    page = come("/label/desk/plain")
    before = item(page)

    def spoil(route) -> None:
        route.continue_(post_data={**route.request.post_data_json, "revision": 99})

    page.context.route("**/label/api/submit", spoil)
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    page.locator("#refused").wait_for()
    assert page.locator("#refused-head").inner_text() == "1 answer was not accepted"
    assert page.locator("#refused .trouble").inner_text()
    page.locator("#refused summary").click()
    assert '"points": 3' in page.locator("#refused .code").inner_text()
    page.reload()
    page.locator("#refused").wait_for()
    page.context.unroute("**/label/api/submit", spoil)
    page.get_by_role("button", name="Try again").click()
    page.locator("#refused").wait_for(state="hidden")
    (row,) = rows_of(desk, who, "plain", 1)
    assert shown_points(row) == 3
    assert before


def test_two_tabs_send_an_answer_once(come, desk, who):
    page = come("/label/desk/plain")
    item(page)
    arrived: list[str] = []

    def note(request) -> None:
        if request.url.endswith("/api/submit"):
            arrived.append(request.post_data_json["key"])

    page.context.on("requestfinished", note)  # tries that found no connection are none of these
    other = page.context.new_page()
    other.goto(f"{desk.url}/label/desk/ranking")
    other.locator(".duel").wait_for()
    page.context.set_offline(True)
    for key in "36":
        page.keyboard.press(key)
        page.keyboard.press("Enter")
    page.locator("#line.down", has_text="2 waiting").wait_for()
    page.context.set_offline(False)
    for one in (page, other, page, other):
        one.evaluate("() => dispatchEvent(new Event('online'))")
    rows_of(desk, who, "plain", 2)
    sent(page)
    page.wait_for_timeout(500)  # long enough for a second one
    assert len(arrived) == 2
    assert len(set(arrived)) == 2


def test_an_item_that_is_answered_in_one_tab_goes_from_the_other(come, desk, who):
    page = come("/label/desk/plain")
    before = item(page)
    other = page.context.new_page()
    other.goto(f"{desk.url}/label/desk/plain")
    assert item(other) == before
    other.keyboard.press("3")
    other.keyboard.press("Enter")
    item(other, other_than=before)
    item(page, other_than=before)
    assert "answered in another tab" in page.evaluate(SAID)
    rows_of(desk, who, "plain", 1)
    clean(page, desk)


def test_an_item_is_held_while_somebody_looks_and_no_longer(come, desk, who):
    page = come("/label/account")
    page.clock.install()
    page.goto(f"{desk.url}/label/desk/plain")
    item(page)
    with page.expect_response("**/label/api/heartbeat") as told:
        page.clock.fast_forward(61_000)
    assert len(told.value.json()["leases"]) == 2  # the one on the screen, and the next
    page.evaluate("() => Object.defineProperty(document, 'hidden', { get: () => true })")
    before = len([url for url in page.requests if url.endswith("/heartbeat")])
    page.clock.fast_forward(300_000)
    page.wait_for_timeout(300)
    assert len([url for url in page.requests if url.endswith("/heartbeat")]) == before


def test_the_next_item_is_painted_within_50_ms_of_the_key(come, desk, who):
    page = come("/label/desk/plain")
    took = []
    for _ in range(12):
        before = item(page)
        page.keyboard.press("3")
        page.evaluate(PAINTED)
        page.keyboard.press("Enter")
        took.append(page.evaluate("() => measured"))
        item(page, other_than=before)
        sent(page)
    print("key to painted, ms:", sorted(round(one, 1) for one in took))
    assert statistics.median(took) < 50

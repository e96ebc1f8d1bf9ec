// Keeps a page live. Without it every page still works: it is read anew by hand.
"use strict";
(() => {
  const SETTLE_MS = 150; // changes come in swarms
  const PAUSE_MS = 1000; // and the registry is asked at most so often
  const ANYWAY_MS = 60000; // an event may be lost, and a status also changes by time passing
  const STALE_MS = 15000;
  const LONGEST_WAIT_MS = 30000;

  const events = document.body.dataset.events;
  const live = document.getElementById("live");
  const main = document.getElementById("main");
  const byId = (id) => (id ? document.getElementById(id) : null);
  document.documentElement.classList.add("js");

  // Ages. The server's clock counts, not this machine's.
  let skew = 0;
  const setClock = () => {
    if (main.dataset.at) skew = Date.parse(main.dataset.at) - Date.now();
  };
  const span = (s) => {
    if (s < 120) return `${s} s`;
    if (s < 7200) return `${Math.floor(s / 60)} min`;
    if (s < 172800) return `${Math.floor(s / 3600)} h`;
    return `${Math.floor(s / 86400)} d`;
  };
  const left = (s) => (s < 3600 ? `${Math.floor(s / 60)}:${String(s % 60).padStart(2, "0")}` : span(s));
  const words = {
    ago: (s) => `${span(s)} ago`,
    for: (s) => span(s),
    left: (s) => left(s),
  };
  const tickOne = (time, now) => {
    const mode = time.dataset.counts;
    const distance = Math.floor((now - Date.parse(time.dateTime)) / 1000);
    const seconds = Math.max(0, mode === "left" ? -distance : distance);
    const text = words[mode](seconds);
    if (time.textContent !== text) time.textContent = text;
    if (mode === "left" && seconds === 0) time.closest(".request")?.classList.add("lapsed");
    if (!time.dataset.local) {
      time.dataset.local = "1";
      time.title += `, ${new Date(time.dateTime).toLocaleTimeString()} here`;
    }
  };
  const tick = () => {
    const now = Date.now() + skew;
    for (const time of document.querySelectorAll("time[data-counts]")) tickOne(time, now);
    show();
  };

  // How fresh the page is, said once when it changes.
  let open = false;
  let failing = false;
  let lastGood = Date.now();
  const hhmm = (ms) => new Date(ms).toTimeString().slice(0, 5);
  const show = () => {
    if (!live || !events) return;
    if (open && !failing) lastGood = Date.now();
    const stale = Date.now() - lastGood > STALE_MS;
    const state = open && !failing ? "live" : stale ? "stale" : "reconnecting";
    const text = state === "stale" ? `stale since ${hhmm(lastGood)}` : state;
    live.dataset.state = state;
    if (live.textContent !== text) live.textContent = text;
  };

  // Brings one element to what another says, keeping the nodes: focus, scroll and open details stay as they are.
  const patch = (old, fresh) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    const kept = (name) => name === "open" && old.nodeName === "DETAILS";
    for (const { name, value } of [...fresh.attributes]) {
      if (!kept(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    for (const { name } of [...old.attributes]) {
      if (!kept(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    patchChildren(old, fresh);
  };
  const patchChildren = (old, fresh) => {
    const named = new Map([...old.children].filter((c) => c.id).map((c) => [c.id, c]));
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const plain = at && !at.id && !next.id && at.nodeName === next.nodeName ? at : null;
      const match = next.id ? named.get(next.id) : plain;
      if (!match || match.nodeName !== next.nodeName) {
        old.insertBefore(next, at);
        continue;
      }
      named.delete(next.id);
      if (match === at) at = at.nextSibling;
      else old.insertBefore(match, at);
      patch(match, next);
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };

  // Reads the same page anew.
  let timer = 0;
  let busy = false;
  let again = false;
  let lastRead = 0;
  const swap = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    const fresh = page.getElementById("main");
    if (!fresh?.dataset.at) throw new Error("another page");
    const focused = document.activeElement;
    const id = focused?.id || focused?.closest?.("[data-row]")?.id;
    patch(main, fresh);
    document.title = page.title;
    if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
    else if (!focused?.isConnected) byId(id)?.focus({ preventScroll: true });
    setClock();
    tick();
  };
  const read = async () => {
    if (busy || document.hidden) {
      again = true;
      return;
    }
    busy = true;
    again = false;
    lastRead = Date.now();
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (answer.status === 401 || answer.redirected) return location.reload();
      if (!answer.ok) throw new Error(String(answer.status));
      swap(await answer.text());
      failing = false;
    } catch {
      failing = true;
      again = true;
    } finally {
      busy = false;
      show();
    }
    if (again) wish(failing ? 5000 : SETTLE_MS);
  };
  const wish = (delay) => {
    clearTimeout(timer);
    timer = setTimeout(read, Math.max(delay, lastRead + PAUSE_MS - Date.now()));
  };

  // Told of changes, while somebody looks: a browser keeps six connections to one place, over all its tabs.
  let source = null;
  let wait = 1000;
  const rest = () => {
    source?.close();
    source = null;
    open = false;
  };
  const listen = () => {
    if (source || document.hidden) return;
    source = new EventSource(events);
    source.addEventListener("open", () => {
      if (!open) wish(SETTLE_MS);
      open = true;
      wait = 1000;
      show();
    });
    source.addEventListener("changed", () => wish(SETTLE_MS));
    source.addEventListener("error", () => {
      const refused = source?.readyState === EventSource.CLOSED;
      open = false;
      show();
      if (!refused) return;
      // Refused, not interrupted: the browser does not try again by itself. Reading tells a lost session.
      rest();
      wish(SETTLE_MS);
      setTimeout(listen, wait * (0.5 + Math.random()));
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    });
  };

  // The keyboard.
  const move = (step) => {
    const rows = [...document.querySelectorAll("[data-row]")];
    const here = rows.indexOf(document.activeElement?.closest?.("[data-row]"));
    const to = rows[here < 0 ? 0 : Math.min(rows.length - 1, Math.max(0, here + step))];
    (to?.querySelector("a.open") ?? to)?.focus();
    to?.scrollIntoView({ block: "nearest" });
  };
  const keys = {
    "/": () => {
      const search = byId("q");
      search?.focus();
      search?.select();
    },
    j: () => move(1),
    k: () => move(-1),
    g: () => location.assign("/"),
    "?": () => byId("keys")?.showModal(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest?.("input, select, textarea, dialog[open]");
    if (typing) {
      if (event.key === "Escape") event.target.blur?.();
      return;
    }
    const act = Object.hasOwn(keys, event.key) && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  const copy = async (button) => {
    let said = "Copied";
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      // No clipboard without https: the text is selected instead.
      getSelection().selectAllChildren(button.previousElementSibling);
      said = "Selected";
    }
    button.textContent = said;
    setTimeout(() => (button.textContent = "Copy"), 1500);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".copy");
    if (button) copy(button);
  });
  document.addEventListener("change", (event) => {
    if (event.target.matches?.(".filters select")) event.target.form.requestSubmit();
  });

  const retry = Number(document.body.dataset.retry);
  if (retry) setTimeout(() => location.replace(location.pathname + location.search), retry * 1000);
  if (!events) return;
  setClock();
  tick();
  setInterval(tick, 1000);
  setInterval(() => wish(0), ANYWAY_MS);
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : listen()));
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  listen();
})();

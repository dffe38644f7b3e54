// Live without a reload: the page is asked for again while somebody looks at it, and what has changed in it is renewed.
"use strict";
(() => {
  const EVERY = 3000, AWAY = 10000, PATIENCE = 20000;
  const main = document.getElementById("main"), away = document.getElementById("away"), asOf = document.getElementById("as-of");
  let timer = 0, isAsking = false, isLeaving = false;

  const isAlike = (one, other) => one.nodeName === other.nodeName && (one.id ?? "") === (other.id ?? "");

  // The node that is to become `wanted`, from one on: text where it stands, an element wherever it is.
  function found(from, wanted) {
    if (wanted.nodeType !== Node.ELEMENT_NODE) return from && isAlike(from, wanted) ? from : null;
    for (let one = from; one; one = one.nextSibling) if (isAlike(one, wanted)) return one;
    return null;
  }

  // Whatever is the same stays the same node: with it its focus, its selection, how far it is scrolled, what is open.
  function renew(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    // What is gone goes first: nothing else has to move for it, and what moves loses its focus.
    const stay = new Set([...fresh.children].map((one) => one.id));
    for (const one of [...old.children]) if (one.id && !stay.has(one.id)) one.remove();
    let next = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const same = found(next, wanted);
      if (!same) { old.insertBefore(wanted, next); continue; }
      if (same === next) next = next.nextSibling; else old.insertBefore(same, next);
      renew(same, wanted);
    }
    while (next) { const gone = next; next = next.nextSibling; gone.remove(); }
  }

  // A log is read at its end, unless somebody has scrolled up.
  const tails = () => [...document.querySelectorAll("[data-tail]")];
  const isAtEnd = (one) => one.scrollHeight - one.scrollTop - one.clientHeight < 8;
  const toEnd = (one) => { one.scrollTop = one.scrollHeight; };

  function show(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const drawn = fresh.getElementById("main");
    if (!drawn) throw new Error("this is somebody else's page");
    const focused = document.activeElement, followed = tails().filter(isAtEnd);
    renew(main, drawn);
    document.title = fresh.title;
    renew(asOf, fresh.getElementById("as-of"));
    followed.forEach(toEnd);
    if (focused !== document.activeElement) (focused.isConnected ? focused : main).focus({ preventScroll: true });
    away.textContent = "";
  }

  async function look() {
    if (isAsking || document.hidden || !main.hasAttribute("data-live")) return;
    clearTimeout(timer);
    isAsking = true;
    const began = performance.now();
    let pause = EVERY;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      show(await answer.text());
      // A page that takes long to draw is asked for less often.
      pause = Math.max(EVERY, 5 * (performance.now() - began));
    } catch {
      pause = AWAY;
      if (!isLeaving && !away.textContent) away.textContent = `The console does not answer. What is shown is as of ${asOf.textContent}.`;
    }
    isAsking = false;
    timer = setTimeout(look, pause);
  }

  tails().forEach(toEnd);
  document.addEventListener("visibilitychange", look);
  addEventListener("beforeunload", () => { isLeaving = true; });
  timer = setTimeout(look, EVERY);
})();

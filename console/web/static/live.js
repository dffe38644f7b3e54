// Live without a reload: what is marked so is asked for again while somebody looks, and replaced where it has changed.
"use strict";
(() => {
  const EVERY = 3000;
  const status = document.getElementById("live");

  // What somebody is at stays as it is: what has the focus, a text that is selected, and details that are open.
  const isBusy = (part) => part.contains(document.activeElement) || (getSelection().type === "Range" && part.contains(getSelection().anchorNode));

  function replace(part, fresh) {
    if (part.innerHTML === fresh.innerHTML || isBusy(part)) return;
    const scrolled = [...part.querySelectorAll("[tabindex]")].map((one) => [one.scrollLeft, one.scrollTop]);
    part.replaceChildren(...fresh.childNodes);
    [...part.querySelectorAll("[tabindex]")].forEach((one, at) => { if (scrolled[at]) [one.scrollLeft, one.scrollTop] = scrolled[at]; });
  }

  async function look() {
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(10000) });
      if (answer.status !== 200 && answer.status !== 503) throw new Error(answer.status);
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const parts = [...document.querySelectorAll("[data-live]")];
      if (parts.some((part) => !fresh.getElementById(part.id))) return location.reload();
      parts.forEach((part) => replace(part, fresh.getElementById(part.id)));
      document.title = fresh.title;
      const drawn = fresh.getElementById("live");
      status.classList.remove("bad");
      // Said once when it comes back, not every time: a screen reader reads it out.
      if (status.dataset.away) { status.setAttribute("aria-live", "polite"); delete status.dataset.away; } else status.setAttribute("aria-live", "off");
      status.replaceChildren(...drawn.childNodes);
    } catch {
      if (!status.dataset.away) {
        status.dataset.away = "yes";
        status.setAttribute("aria-live", "polite");
        status.classList.add("bad");
        status.textContent = "The console does not answer; what is shown is from before.";
      }
    }
  }

  if (document.querySelector("[data-live]")) {
    setInterval(() => { if (document.visibilityState === "visible") look(); }, EVERY);
    document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible") look(); });
  }
})();

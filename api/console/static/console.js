/* What pages gain from a script; each works without it. Nothing here is needed to see or to decide anything. */
"use strict";

// The only place where text becomes markup: it is our own server's, which escaped it. Other scripts use tagmill.replace.
const policy = window.trustedTypes
  ? window.trustedTypes.createPolicy("tagmill", { createHTML: (html) => html })
  : { createHTML: (html) => html };

const tagmill = {
  csrf: document.documentElement.dataset.csrf,

  /* Post fields (an object; lists repeat a field) and give the JSON answer; throws an Error with the problem's detail. */
  async post(url, fields) {
    const body = new URLSearchParams();
    for (const [name, value] of Object.entries(fields)) {
      for (const each of Array.isArray(value) ? value : [value]) body.append(name, each);
    }
    const answer = await fetch(url, {
      method: "POST",
      body,
      headers: { Accept: "application/json", "X-CSRF-Token": tagmill.csrf },
    });
    const said = answer.headers.get("Content-Type")?.includes("json") ? await answer.json() : {};
    if (!answer.ok) throw Object.assign(new Error(said.detail || answer.statusText), { problem: said });
    return said;
  },

  /* Put our server's markup in the place of an element. */
  replace(element, html) {
    const parsed = new DOMParser().parseFromString(policy.createHTML(html), "text/html");
    const fresh = parsed.body.firstElementChild;
    if (fresh) element.replaceWith(fresh);
    return fresh;
  },

  /* Tell something above the page's content. */
  say(text, kind = "note") {
    const notice = document.createElement("p");
    notice.className = `notice k-${kind}`;
    notice.setAttribute("role", "status");
    notice.textContent = text;
    document.getElementById("main").prepend(notice);
    return notice;
  },
};
window.tagmill = tagmill;

/* data-refresh="URL" data-every="seconds": the element is fetched again, until what comes has no data-refresh;
   with data-then="reload" the whole page is loaded then, for what else its end changes. */
function keepFresh(element) {
  const pause = 1000 * Number(element.dataset.every || 3);
  const again = async () => {
    if (!element.isConnected) return;
    if (document.hidden) return void setTimeout(again, pause);
    try {
      const answer = await fetch(element.dataset.refresh, { headers: { Accept: "text/html" }, redirect: "error" });
      if (answer.ok) {
        const fresh = tagmill.replace(element, await answer.text());
        if (fresh?.dataset.refresh) keepFresh(fresh);
        else if (element.dataset.then === "reload") location.reload();
        return;
      }
      if (answer.status < 500) return;
    } catch {
      // The server is away, or the session ended: the next try tells.
    }
    setTimeout(again, pause * 3);
  };
  setTimeout(again, pause);
}

/* data-clear="SELECTOR": the button shows the pictures (img[data-item]) in there as they are. */
async function showClear(button) {
  const pictures = [...document.querySelectorAll(`${button.dataset.clear} img[data-item]`)];
  if (!pictures.length) return;
  button.disabled = true;
  try {
    const size = button.dataset.size || "240";
    const said = await tagmill.post("/console/pictures/clear", { items: pictures.map((p) => p.dataset.item), size });
    for (const picture of pictures) picture.src = said.pictures[picture.dataset.item] ?? picture.src;
  } catch (error) {
    tagmill.say(error.message, "bad");
    button.disabled = false;
  }
}

document.querySelectorAll("[data-refresh]").forEach(keepFresh);

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-clear]");
  if (button) {
    event.preventDefault();
    showClear(button);
  }
});

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.confirm && !window.confirm(form.dataset.confirm)) event.preventDefault();
});

/* A file field inside .drop says what was chosen. */
document.querySelectorAll(".drop input[type=file]").forEach((field) => {
  const zone = field.closest(".drop");
  const told = zone.querySelector("[data-chosen]");
  const nothing = told?.textContent;
  for (const name of ["dragenter", "dragover"]) zone.addEventListener(name, () => zone.classList.add("is-over"));
  for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("is-over"));
  field.addEventListener("change", () => {
    const bytes = [...field.files].reduce((sum, file) => sum + file.size, 0);
    const count = field.files.length;
    if (told) {
      told.textContent = count ? `${count} ${count === 1 ? "file" : "files"}, ${(bytes / 1e6).toFixed(1)} MB` : nothing;
    }
  });
});

/* select[data-submit]: choosing is enough. */
document.querySelectorAll("select[data-submit]").forEach((field) => {
  field.addEventListener("change", () => field.form.requestSubmit());
});

// The forms of the pages that links in mails lead to. They send the token that stands after #.
const main = document.querySelector("main");
const token = new URLSearchParams(location.hash.slice(1)).get("token");
// Not in the history: whoever uses this browser next must not find it.
history.replaceState(null, "", location.pathname);

for (const form of document.forms) {
  const needsNone = "withoutToken" in form.dataset;
  form.hidden = Boolean(token) === needsNone && document.forms.length > 1;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(form, needsNone ? {} : { token });
  });
}

/** Send what a form has, and show what comes of it. */
async function send(form, values) {
  const { method, member, done } = form.dataset;
  const body = { [member]: { ...values, ...Object.fromEntries(new FormData(form)) } };
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const response = await fetch(main.dataset.api, {
      method,
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(explained(await response.json()));
    form.remove();
    show("status", done);
    show("alert", "");
  } catch (error) {
    show("alert", error.message);
    button.disabled = false;
  }
}

/** Return what is wrong, by a problem document (RFC 9457). */
function explained({ detail, errors = [] }) {
  return errors.map((error) => error.detail).join(" ") || detail;
}

function show(role, text) {
  document.querySelector(`[role=${role}]`).textContent = text;
}

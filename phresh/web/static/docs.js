// Swagger UI, with a login by email and password, and with examples that change nothing that exists.
const docs = document.getElementById("docs");
const SCHEME = "bearer"; // of the document's securitySchemes
const STORED = "phresh.token"; // in sessionStorage: this tab's, until it is closed
const NO_ETAG = '"paste-the-ETag-of-GET-or-clear-this"';

/** Return the document as this page uses it: with its own server, and prefilled so that it is safe. */
function adapted(api) {
  // The policy of this page allows no other host, and PUBLIC_URL may be one.
  api.servers = [{ url: new URL(docs.dataset.root, location).href.replace(/\/$/, "") }];
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const creates = method === "post" && !path.includes("{");
      const changes = method !== "get" && !creates;
      operation.parameters &&= operation.parameters.map((each) => prefilled(api, each, changes));
    }
  }
  return api;
}

/** Return an object of the document with what it refers to, if it is a reference. */
function found(api, { $ref, ...beside }) {
  const referred = $ref?.split("/").slice(1).reduce((part, name) => part[name], api);
  return { ...referred, ...beside };
}

/**
 * Return a parameter without its example, which Swagger UI would send, unless it is required. For
 * what changes something, If-Match has an ETag that no resource has: nothing is written.
 */
function prefilled(api, reference, changes) {
  const { example, examples, ...parameter } = found(api, reference);
  if (parameter.required) return reference;
  const { example: ofSchema, examples: ofSchemas, ...schema } = found(api, parameter.schema);
  if (parameter.name !== "If-Match" || !changes) return { ...parameter, schema };
  const description =
    "This page fills it in, so that Execute changes nothing: the response is 412. " +
    "To write, clear it, or paste the ETag of the GET response.";
  return { ...parameter, schema, example: NO_ETAG, description };
}

/** Plug the login into Swagger UI's dialog, and keep the token, and only it, over a reload. */
function Login({ React }) {
  const h = React.createElement;

  function Form({ authActions, schema }) {
    const [error, setError] = React.useState("");
    const [needsCode, setNeedsCode] = React.useState(false);
    async function submit(event) {
      event.preventDefault();
      const body = new URLSearchParams(new FormData(event.target));
      try {
        const response = await fetch(docs.dataset.login, { method: "POST", body });
        const result = await response.json();
        if (result.error === "mfa_required") setNeedsCode(true);
        if (!response.ok) throw new Error(result.detail);
        authActions.authorize({ [SCHEME]: { name: SCHEME, schema, value: result.access_token } });
      } catch (failure) {
        setError(failure.message);
      }
    }
    const field = (id, label, attributes) =>
      h("div", { className: "wrapper" },
        h("label", { htmlFor: id }, label),
        h("input", { id, required: true, ...attributes }));
    return h("form", { className: "auth-container", onSubmit: submit },
      h("h4", null, "Log in"),
      field("oauth_username", "Username (which is your email address):",
        { name: "username", type: "text", inputMode: "email", autoComplete: "username" }),
      field("oauth_password", "Password:",
        { name: "password", type: "password", autoComplete: "current-password" }),
      needsCode && field("oauth_otp", "Code of your second factor, or a recovery code:",
        { name: "otp", autoComplete: "one-time-code" }),
      error && h("div", { className: "errors", role: "alert" }, error),
      h("div", { className: "auth-btn-wrapper" },
        h("button", { className: "btn modal-btn auth authorize", type: "submit" }, "Authorize")));
  }

  return {
    wrapComponents: {
      // What the dialog shows: the form of Swagger UI below takes a token that you have already.
      auths: (Original) => (props) => {
        const scheme = props.definitions.get(SCHEME);
        const isOut = !props.authSelectors.authorized().get(SCHEME);
        return h("div", null,
          isOut && h(Form, { authActions: props.authActions, schema: scheme.toJS() }),
          h(Original, props));
      },
    },
    statePlugins: {
      auth: {
        wrapActions: {
          authorize: (original) => (payload) => {
            const result = original(payload);
            sessionStorage.setItem(STORED, payload[SCHEME].value);
            return result;
          },
          logout: (original) => (names) => {
            sessionStorage.removeItem(STORED);
            return original(names);
          },
        },
        wrapSelectors: {
          // An operation that needs no token, but takes one, has an empty requirement beside it.
          isAuthorized: (original) => (state, security) =>
            original(security?.filter((requirement) => requirement.size)),
        },
      },
      spec: {
        wrapActions: { updateJsonSpec: (original) => (api) => original(adapted(api)) },
      },
    },
  };
}

const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", paint);
paint();

const ui = SwaggerUIBundle({
  domNode: docs,
  url: docs.dataset.document,
  deepLinking: true,
  tryItOutEnabled: true,
  // Otherwise it sends the document to another host to validate it.
  validatorUrl: null,
  plugins: [Login],
  onComplete() {
    const token = sessionStorage.getItem(STORED);
    if (token) ui.preauthorizeApiKey(SCHEME, token);
  },
});

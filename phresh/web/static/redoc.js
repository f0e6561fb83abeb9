import { init } from "./redoc/redoc.standalone.js";

// Redoc's logo is on another host, which the policy of this page blocks, with an error in the
// console. Let such an image fail without a request: docs.css has the name in its place.
const image = HTMLImageElement.prototype;
const { get, set } = Object.getOwnPropertyDescriptor(image, "src");
function setSource(url) {
  const { origin, protocol } = new URL(url, location);
  if (origin === location.origin || protocol === "data:") set.call(this, url);
  else setTimeout(() => this.dispatchEvent(new Event("error")));
}
Object.defineProperty(image, "src", { get, set: setSource });
image.setAttribute = function setAttribute(name, value) {
  if (name === "src") setSource.call(this, value);
  else Element.prototype.setAttribute.call(this, name, value);
};

const docs = document.getElementById("docs");
const response = await fetch(docs.dataset.document);
// The document, not its URL: with that, Redoc offers to send it to other hosts.
init(await response.json(), { disableTelemetry: true, router: "hash" }, docs);

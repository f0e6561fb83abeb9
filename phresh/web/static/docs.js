const docs = document.getElementById("docs");

SwaggerUIBundle({
  domNode: docs,
  url: docs.dataset.document,
  deepLinking: true,
  tryItOutEnabled: true,
  // Otherwise it sends the document to another host to validate it.
  validatorUrl: null,
});

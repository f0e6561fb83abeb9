const docs = document.getElementById("docs");

SwaggerUIBundle({
  domNode: docs,
  url: docs.dataset.document,
  deepLinking: true,
  tryItOutEnabled: true,
  // Else it asks another host to judge the document.
  validatorUrl: null,
});

"use strict";

/* Swagger UI 4 draws what OpenAPI 3.0 knows and refuses a document that says 3.1. What this document uses of 3.1 it
   draws all the same, so it is told 3.0; /openapi.json itself stays as it is. */
const presented = { statePlugins: { spec: { wrapActions: { updateJsonSpec: (update) => (spec) =>
  update({ ...spec, openapi: "3.0.3" }) } } } };

window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: "/openapi.json",
    dom_id: "#interface",
    deepLinking: true,
    validatorUrl: null,
    defaultModelsExpandDepth: 0,
    plugins: [presented],
    presets: [SwaggerUIBundle.presets.apis],
  });
});

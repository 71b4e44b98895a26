//! The API described as OpenAPI 3.1, served at `/openapi.json`, with a reference page at `/docs`.
//!
//! Schemas are derived from types: of answers the types that are written, of bodies (which are read field by field) types that say
//! what is read. Each dialect describes its own routes in `docs.rs` of its folder; tests hold descriptions against readers,
//! routes and answers.

mod errors;
mod op;
mod ops;
mod page;
mod schema;
#[cfg(test)]
mod tests;

pub(crate) use errors::Shape;
pub(crate) use op::{Op, header};
pub(crate) use page::routes;
pub(crate) use schema::{Document, Object, form, object, strict, text};

use std::sync::LazyLock;

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, License, OpenApi, OpenApiBuilder};

use crate::{admin, dialects};

/// Groups of operations, in the order of the reference.
const TAGS: [(&str, &str); 8] = [
    (PICTURES, "Pictures, by latentd's own names. Bodies are JSON, or forms with pictures as files."),
    (JOBS, "Pictures that outlive the connection, and the process."),
    (CATALOGUE, "What may be asked for."),
    (OPENAI, "OpenAI's Images API."),
    (WEBUI, "The API of AUTOMATIC1111's stable-diffusion-webui. Fields that mean nothing here are left alone."),
    (KSERVE, "Health and metadata of KServe's V2 protocol."),
    (OPERATIONS, "For those who run the service."),
    (ADMIN, "Models of a running service."),
];
pub(crate) const PICTURES: &str = "Pictures";
pub(crate) const JOBS: &str = "Jobs";
pub(crate) const CATALOGUE: &str = "Catalogue";
pub(crate) const OPENAI: &str = "OpenAI";
pub(crate) const WEBUI: &str = "Web UI";
pub(crate) const KSERVE: &str = "KServe";
pub(crate) const OPERATIONS: &str = "Operations";
pub(crate) const ADMIN: &str = "Admin";

/// One pixel, for examples: the smallest PNG, in base64.
pub(crate) const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

const ABOUT: &str = "Pictures by latent diffusion models.\n\nEvery answer has the headers `x-request-id` and `server-timing`; answers with \
pictures have `x-job-id`. What went wrong comes in one shape for each dialect, with a code on which programs choose. Where the service \
has keys, send one as `authorization: Bearer`, `x-api-key`, or as the password of HTTP Basic.";

/// The document as JSON, indented, with a line's end: what `docs/openapi.json` holds and `/openapi.json` serves.
pub fn openapi() -> &'static str {
    static JSON: LazyLock<String> = LazyLock::new(|| {
        // Maps with names and values always become JSON.
        let json = document().to_pretty_json().unwrap_or_default();
        json + "\n"
    });
    &JSON
}

fn document() -> OpenApi {
    let mut document = Document::default();
    errors::describe(&mut document);
    dialects::describe(&mut document);
    ops::describe(&mut document);
    admin::docs::describe(&mut document);
    let Document { paths, schemas, responses } = document;
    let components = ComponentsBuilder::new().schemas_from_iter(schemas).responses_from_iter(responses);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("A key, or the admin token.")).build();
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).description(Some("A key as the password.")).build();
    let header = ApiKey::Header(ApiKeyValue::with_description("x-api-key", "A key."));
    let components = components
        .security_scheme("bearer", SecurityScheme::Http(bearer))
        .security_scheme("apiKey", SecurityScheme::ApiKey(header))
        .security_scheme("basic", SecurityScheme::Http(basic))
        .build();
    let none: [&str; 0] = [];
    let anonymous = SecurityRequirement::default();
    let schemes = ["bearer", "apiKey", "basic"].map(|name| SecurityRequirement::new(name, none));
    let mut license = License::new("MIT OR Apache-2.0");
    license.identifier = Some("MIT OR Apache-2.0".to_owned());
    let info = InfoBuilder::new().title("latentd").version(env!("CARGO_PKG_VERSION")).description(Some(ABOUT));
    OpenApiBuilder::new()
        .info(info.license(Some(license)).build())
        .paths(paths)
        .components(Some(components))
        .security(Some([anonymous].into_iter().chain(schemes)))
        .tags(Some(TAGS.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build())))
        .build()
}

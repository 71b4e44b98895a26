//! One operation: a method of a path, with what it takes and what it answers.

use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, Operation, OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{Object, Schema};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{RefOr, Required, Response, ResponseBuilder};

use super::errors::Shape;
use super::{Document, text};

/// An operation that is being described.
pub(crate) struct Op<'a> {
    document: &'a mut Document,
    method: HttpMethod,
    path: &'static str,
    operation: OperationBuilder,
    body: Option<RequestBody>,
    shape: Shape,
}

impl<'a> Op<'a> {
    /// `GET`.
    pub(crate) fn get(document: &'a mut Document, tag: &str, path: &'static str, summary: &str) -> Self {
        Self::new(document, HttpMethod::Get, tag, path, summary)
    }

    /// `POST`.
    pub(crate) fn post(document: &'a mut Document, tag: &str, path: &'static str, summary: &str) -> Self {
        Self::new(document, HttpMethod::Post, tag, path, summary)
    }

    /// Another method.
    pub(crate) fn new(document: &'a mut Document, method: HttpMethod, tag: &str, path: &'static str, summary: &str) -> Self {
        let word = match method {
            HttpMethod::Get => "get",
            HttpMethod::Put => "put",
            HttpMethod::Delete => "delete",
            _ => "post",
        };
        let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let id = [word].into_iter().chain(words).collect::<Vec<_>>().join("_");
        let operation = OperationBuilder::new().tag(tag).summary(Some(summary)).operation_id(Some(id));
        Self { document, method, path, operation, body: None, shape: Shape::Native }
    }

    /// What else there is to say.
    pub(crate) fn note(mut self, note: &str) -> Self {
        self.operation = self.operation.description(Some(note));
        self
    }

    /// It is answered without a key.
    pub(crate) fn open(mut self) -> Self {
        self.operation = self.operation.security(SecurityRequirement::default());
        self
    }

    /// Errors have that shape; said before the errors.
    pub(crate) fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    /// A part of the path.
    pub(crate) fn part(self, name: &str, about: &str) -> Self {
        self.parameter::<String>(ParameterIn::Path, name, about)
    }

    /// A part of the path that is a number.
    pub(crate) fn number(self, name: &str, about: &str) -> Self {
        self.parameter::<u32>(ParameterIn::Path, name, about)
    }

    /// A word in the query.
    pub(crate) fn query<T: ToSchema>(self, name: &str, about: &str) -> Self {
        self.parameter::<T>(ParameterIn::Query, name, about)
    }

    /// A header of the request.
    pub(crate) fn header<T: ToSchema>(self, name: &str, about: &str) -> Self {
        self.parameter::<T>(ParameterIn::Header, name, about)
    }

    fn parameter<T: ToSchema>(mut self, place: ParameterIn, name: &str, about: &str) -> Self {
        let required = if matches!(place, ParameterIn::Path) { Required::True } else { Required::False };
        let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
        self.operation = self.operation.parameter(parameter.description(Some(about)).schema(Some(T::schema())));
        self
    }

    /// A body of that media type.
    pub(crate) fn takes(mut self, kind: &str, schema: impl Into<RefOr<Schema>>, example: Option<Value>) -> Self {
        let content = ContentBuilder::new().schema(Some(schema)).example(example).build();
        let body = self.body.take().map_or_else(|| RequestBodyBuilder::new().required(Some(Required::True)), Into::into);
        self.body = Some(body.content(kind, content).build());
        self
    }

    /// The body may be left out; said after it.
    pub(crate) fn optional(mut self) -> Self {
        let body = self.body.take().map(RequestBodyBuilder::from);
        self.body = body.map(|body| body.required(Some(Required::False)).build());
        self
    }

    /// A JSON body of that type.
    pub(crate) fn json<T: ToSchema>(self, example: Value) -> Self {
        let schema = self.document.refer::<T>();
        self.takes("application/json", schema, Some(example))
    }

    /// A JSON body with those fields, and the same as a form where some of them are files.
    pub(crate) fn fields(self, name: &str, fields: Object, files: &[&str], example: Value) -> Self {
        let form = self.document.name(&format!("{name}Form"), Schema::Object(super::form(fields.clone(), files)));
        let json = self.document.name(name, Schema::Object(fields));
        self.takes("application/json", json, Some(example)).takes("multipart/form-data", form, None)
    }

    /// An answer in JSON of that type.
    pub(crate) fn answers<T: ToSchema>(self, status: u16, about: &str) -> Self {
        let schema = self.document.refer::<T>();
        let content = ContentBuilder::new().schema(Some(schema)).build();
        self.answer(status, ResponseBuilder::new().description(about).content("application/json", content).build())
    }

    /// An answer as it is described.
    pub(crate) fn answer(mut self, status: u16, response: Response) -> Self {
        self.operation = self.operation.response(status.to_string(), response);
        self
    }

    /// The ways in which it fails, by status.
    pub(crate) fn errors(mut self, statuses: &[u16]) -> Self {
        for status in statuses {
            self.operation = self.operation.response(status.to_string(), self.shape.refer(*status));
        }
        self
    }

    /// Puts the operation into the document.
    pub(crate) fn done(self) {
        let Self { document, method, path, operation, body, .. } = self;
        let operation: Operation = operation.request_body(body).build();
        document.paths.add_path_operation(path, vec![method], operation);
    }
}

/// A header of an answer.
pub(crate) fn header(about: &str) -> utoipa::openapi::Header {
    HeaderBuilder::new().schema(Some(text())).description(Some(about)).build()
}

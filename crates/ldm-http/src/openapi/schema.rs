//! What a document is made of: paths, schemas by name, answers that several operations share.

use std::collections::BTreeMap;

use utoipa::ToSchema;
use utoipa::openapi::path::Paths;
use utoipa::openapi::schema::{AdditionalProperties, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Response};

pub(crate) use utoipa::openapi::schema::Object;

/// A document that is being written.
#[derive(Default)]
pub(crate) struct Document {
    pub(super) paths: Paths,
    pub(super) schemas: BTreeMap<String, RefOr<Schema>>,
    pub(super) responses: BTreeMap<String, RefOr<Response>>,
}

impl Document {
    /// A reference to the type's schema, which is taken in with all that it refers to.
    pub(crate) fn refer<T: ToSchema>(&mut self) -> RefOr<Schema> {
        self.take::<T>();
        self.name(&T::name(), T::schema())
    }

    /// A reference to a schema by its name.
    pub(crate) fn name(&mut self, name: &str, schema: impl Into<RefOr<Schema>>) -> RefOr<Schema> {
        self.schemas.insert(name.to_owned(), schema.into());
        RefOr::Ref(Ref::from_schema_name(name))
    }

    /// Takes in what the type's schema refers to.
    pub(crate) fn take<T: ToSchema>(&mut self) {
        let mut within = Vec::new();
        T::schemas(&mut within);
        self.schemas.extend(within);
    }
}

/// The type's schema, which is an object; anything else has no fields. A default of `null` says nothing and is left out.
pub(crate) fn object<T: ToSchema>() -> Object {
    let RefOr::T(Schema::Object(mut object)) = T::schema() else { return Object::new() };
    for property in object.properties.values_mut() {
        if let RefOr::T(Schema::Object(property)) = property {
            property.default.take_if(|default| default.is_null());
        }
    }
    object
}

/// The fields of both, and no others.
pub(crate) fn strict(mut object: Object, more: Object) -> Object {
    object.properties.extend(more.properties);
    object.required.extend(more.required);
    object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
    object
}

/// The same fields in a form, where these are files.
pub(crate) fn form(mut object: Object, files: &[&str]) -> Object {
    for file in files {
        if let Some(property) = object.properties.get_mut(*file) {
            let said = match property {
                RefOr::T(Schema::Object(object)) => object.description.take(),
                _ => None,
            };
            let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
            let file = ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).description(said);
            *property = RefOr::T(file.into());
        }
    }
    object
}

/// A text of any kind.
pub(crate) fn text() -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().schema_type(Type::String).into())
}

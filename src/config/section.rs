//! One section of the configuration as a type.

/// Writes one type of settings with its defaults, and with its fixed bounds where it has some.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $name:ident $(+ $bounds:ident)? { $( $(#[doc = $doc:literal])* $key:ident : $ty:ty = $default:expr; )* }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            $( $(#[doc = $doc])* pub $key: $ty, )*
            $(
                /// What is no setting.
                #[doc(hidden)]
                pub bounds: $bounds,
            )?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* $( bounds: $bounds::default(), )? }
            }
        }
    };
}

pub(super) use section;

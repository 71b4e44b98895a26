//! What a scene is made of: colours, shapes, sizes, positions and relations, each with its word.

/// Declares a closed set of things that each have one word in captions.
macro_rules! named {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// How a caption says it.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

named! {
    /// The palette, for backgrounds and objects alike; any two lie at least 95 levels apart in RGB.
    Color {
        /// Nearly white.
        White = "white",
        /// Nearly black.
        Black = "black",
        /// The middle gray.
        Gray = "gray",
        /// A strong red.
        Red = "red",
        /// A leaf green.
        Green = "green",
        /// A strong blue.
        Blue = "blue",
        /// A warm yellow.
        Yellow = "yellow",
        /// A purple between blue and magenta.
        Purple = "purple",
        /// A strong orange.
        Orange = "orange",
        /// A light cyan.
        Cyan = "cyan",
    }
}

named! {
    /// The outlines an object can have.
    Shape {
        /// A disc.
        Circle = "circle",
        /// An upright square.
        Square = "square",
        /// An equilateral triangle that points up.
        Triangle = "triangle",
        /// A five-pointed star that points up.
        Star = "star",
        /// An upright plus sign.
        Cross = "cross",
        /// An annulus with a hole of half its radius.
        Ring = "ring",
    }
}

named! {
    /// How large an object is.
    Size {
        /// About a third of the picture across.
        Small = "small",
        /// About two fifths of the picture across.
        Medium = "medium",
        /// More than half of the picture across.
        Large = "large",
    }
}

named! {
    /// Where an object's middle lies, on a grid of nine places.
    Position {
        /// The upper left corner.
        TopLeft = "top left",
        /// Above the middle.
        Top = "top",
        /// The upper right corner.
        TopRight = "top right",
        /// Left of the middle.
        Left = "left",
        /// The middle.
        Center = "center",
        /// Right of the middle.
        Right = "right",
        /// The lower left corner.
        BottomLeft = "bottom left",
        /// Below the middle.
        Bottom = "bottom",
        /// The lower right corner.
        BottomRight = "bottom right",
    }
}

named! {
    /// How the first of two objects lies to the second.
    Relation {
        /// The first is further left.
        LeftOf = "left of",
        /// The first is further right.
        RightOf = "right of",
        /// The first is higher.
        Above = "above",
        /// The first is lower.
        Below = "below",
    }
}

impl Color {
    /// The exact palette entry; a scene strays from it by a few levels.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::White => [245, 245, 245],
            Self::Black => [15, 15, 15],
            Self::Gray => [128, 128, 128],
            Self::Red => [220, 30, 35],
            Self::Green => [35, 160, 60],
            Self::Blue => [40, 70, 220],
            Self::Yellow => [250, 230, 50],
            Self::Purple => [150, 40, 190],
            Self::Orange => [245, 130, 20],
            Self::Cyan => [60, 215, 235],
        }
    }

    /// The palette entry nearest to `rgb` by squared distance.
    pub fn nearest(rgb: [f32; 3]) -> Self {
        let distance = |color: &Self| -> f32 { color.rgb().iter().zip(rgb).map(|(&a, b)| (f32::from(a) - b).powi(2)).sum() };
        let nearer = |a: &&Self, b: &&Self| distance(a).total_cmp(&distance(b));
        *Self::ALL.iter().min_by(nearer).expect("the palette is not empty")
    }
}

impl Size {
    /// The nominal radius as a fraction of the picture's side.
    pub fn radius(self) -> f32 {
        match self {
            Self::Small => 0.16,
            Self::Medium => 0.205,
            Self::Large => 0.29,
        }
    }

    /// The size whose nominal radius is nearest, by ratio.
    pub fn of_radius(radius: f32) -> Self {
        if radius < 0.1811 {
            Self::Small
        } else if radius < 0.2438 {
            Self::Medium
        } else {
            Self::Large
        }
    }
}

impl Position {
    /// The place of an object whose middle is at `center`, in fractions of the side, y downwards.
    pub fn of_center([x, y]: [f32; 2]) -> Self {
        let third = |v: f32| usize::from(v > 0.42) + usize::from(v > 0.58);
        Self::ALL[third(y) * 3 + third(x)]
    }

    /// Column and row on the grid, each 0, 1 or 2.
    pub fn cell(self) -> [usize; 2] {
        [self as usize % 3, self as usize / 3]
    }
}

impl Relation {
    /// How a thing at `a` lies to a thing at `b`, by the axis on which they are further apart.
    pub fn between(a: [f32; 2], b: [f32; 2]) -> Self {
        let [dx, dy] = [b[0] - a[0], b[1] - a[1]];
        match (dx.abs() >= dy.abs(), dx > 0.0, dy > 0.0) {
            (true, true, _) => Self::LeftOf,
            (true, false, _) => Self::RightOf,
            (false, _, true) => Self::Above,
            (false, _, false) => Self::Below,
        }
    }
}

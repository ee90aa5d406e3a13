//! What can go wrong between the bytes of a network and its results.

use thiserror::Error;

/// Why a file is refused. Names in the messages come from the file.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The bytes are no ONNX file.
    #[error("not an ONNX file")]
    Decode(#[from] prost::DecodeError),
    /// There is nothing to run.
    #[error("the file holds no graph")]
    NoGraph,
    /// A part of the format that would change the meaning.
    #[error("the file holds {0}, which are not supported")]
    Section(&'static str),
    /// The default operators are not named, or in an unknown version.
    #[error("opset {version} is outside {min}..={max}")]
    Opset {
        /// The version found; 0 when there is none.
        version: i64,
        /// The oldest version read.
        min: i64,
        /// The newest version read.
        max: i64,
    },
    /// Not exactly one input that is read and is no initialiser.
    #[error("the graph reads {0} inputs without data, it must read 1")]
    InputCount(usize),
    /// An input that cannot be fed.
    #[error("input '{name}': {reason}")]
    Input {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: InputError,
    },
    /// An initialiser that cannot be read.
    #[error("initialiser '{name}': {reason}")]
    Initialiser {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: TensorError,
    },
    /// Two values under one name.
    #[error("the name '{0}' is given to two values")]
    Duplicate(String),
    /// An output that no node computes from the input.
    #[error("output '{0}' is not computed from the input")]
    Output(String),
    /// The graph shows nothing.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// A node that cannot be run as it stands.
    #[error("node '{node}' ({op}): {reason}")]
    Node {
        /// Its name or, when it has none, that of its first output.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong with it.
        reason: NodeError,
    },
}

/// Why the input is refused.
#[derive(Debug, Error)]
pub enum InputError {
    /// Not a tensor of 32-bit floats.
    #[error("the type is not a tensor of f32")]
    Type,
    /// No shape in the file and none given.
    #[error("the file gives no shape")]
    NoShape,
    /// Zero or too many axes.
    #[error("{0} axes, at least 2 and at most 8 are supported")]
    Rank(usize),
    /// The file fixes another batch size than one.
    #[error("the batch size is {0}, it must be 1 or symbolic")]
    Batch(i64),
    /// A free axis without a size.
    #[error("axis {0} is symbolic, the item shape must be given")]
    Symbolic(usize),
    /// The shape asked for does not fit the file's.
    #[error("the item shape {given:?} does not fit the file's {file:?}")]
    Incompatible {
        /// Row shape asked for.
        given: Vec<usize>,
        /// Row shape of the file; 0 stands for a free axis.
        file: Vec<usize>,
    },
    /// Empty or over the limit.
    #[error("the item shape {0:?} is empty or has too many elements")]
    Size(Vec<usize>),
}

/// Why a tensor of the file cannot be read.
#[derive(Debug, Error)]
pub enum TensorError {
    /// Data in another file.
    #[error("external data is not supported")]
    External,
    /// An element type nobody needs.
    #[error("element type {0} is not supported")]
    Type(i32),
    /// Negative sizes, too many axes or too many elements.
    #[error("the shape {0:?} is not supported")]
    Shape(Vec<i64>),
    /// Data and shape disagree.
    #[error("{found} values are stored, the shape has {expected}")]
    Length {
        /// Values found.
        found: usize,
        /// Values the shape asks for.
        expected: usize,
    },
}

/// Why a node is refused.
#[derive(Debug, Error)]
pub enum NodeError {
    /// An operator of somebody else.
    #[error("operators of the domain '{0}' are not supported")]
    Domain(String),
    /// Nobody taught the importer this operator.
    #[error("the operator is not supported")]
    UnknownOp,
    /// An attribute that the importer of the operator does not know.
    #[error("attribute '{0}' is unknown")]
    UnknownAttribute(String),
    /// An attribute of another type than the standard's, or given twice or by reference.
    #[error("attribute '{0}' has the wrong type")]
    AttributeType(String),
    /// A required attribute is not there.
    #[error("attribute '{0}' is missing")]
    AttributeMissing(&'static str),
    /// A known attribute with a value that is not supported.
    #[error("attribute '{name}' has the unsupported value {value}")]
    AttributeValue {
        /// The attribute.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A required input is not there.
    #[error("input {0} is missing")]
    InputMissing(usize),
    /// More inputs than the operator has.
    #[error("{count} inputs, at most {max} are supported")]
    InputCount {
        /// Inputs found.
        count: usize,
        /// Inputs supported.
        max: usize,
    },
    /// More or fewer outputs than the importer gives.
    #[error("{0} outputs are not supported")]
    OutputCount(usize),
    /// A value that no earlier node computes: unknown, later, or part of a cycle.
    #[error("the value '{0}' is read before it is computed")]
    Undefined(String),
    /// A name that is taken.
    #[error("the value '{0}' is computed twice")]
    Redefined(String),
    /// An input that must be known at import depends on the row.
    #[error("input {0} must be a constant")]
    NotConstant(usize),
    /// An input that must depend on the row is a constant.
    #[error("input {0} must not be a constant")]
    UnexpectedConstant(usize),
    /// Floats where integers are needed, or the other way round.
    #[error("input {input} must hold {expected}")]
    ElementType {
        /// The input.
        input: usize,
        /// What it should hold.
        expected: &'static str,
    },
    /// An input whose shape does not fit.
    #[error("input {input} has the unsupported shape {shape:?}")]
    Shape {
        /// The input.
        input: usize,
        /// Its ONNX shape, with a batch of one.
        shape: Vec<usize>,
    },
    /// A constant input whose value is not supported.
    #[error("input {input} has the unsupported value {value}")]
    Value {
        /// The input.
        input: usize,
        /// Its value.
        value: String,
    },
    /// An axis that does not exist.
    #[error("axis {axis} is outside a value of {rank} axes")]
    Axis {
        /// The axis asked for.
        axis: i64,
        /// Axes there are.
        rank: usize,
    },
    /// The operation would let the rows of a batch see each other.
    #[error("axis {0} is the batch: the operation would mix items")]
    MixesItems(usize),
    /// Division by an integer 0, or an integer overflow.
    #[error("integer arithmetic fails")]
    IntegerArithmetic,
    /// The result would be empty or too large.
    #[error("the result of shape {0:?} is empty or has too many elements")]
    ResultSize(Vec<usize>),
    /// The constants of the file are too large in sum.
    #[error("constants have more than {0} elements")]
    ConstantLimit(usize),
    /// A tensor that cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Why a loaded network does not run.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The tensor is not `[batch, row shape…]` with at least one row.
    #[error("the input has the shape {found:?}, one item has {expected:?}")]
    InputShape {
        /// Shape of the tensor.
        found: Vec<usize>,
        /// Row shape of the network.
        expected: Vec<usize>,
    },
    /// More outputs than a manifest may name.
    #[error("{0} outputs are too many")]
    TooManyOutputs(usize),
    /// No kernels for what was asked.
    #[error(transparent)]
    Select(#[from] super::cpu::SelectError),
    /// GPUs do not run networks in this precision.
    #[cfg(feature = "cuda")]
    #[error("GPUs run networks in f32, tf32 or f16, not in {0}")]
    GpuPrecision(super::Precision),
    /// The GPU or one of its libraries refuses.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] super::cuda::GpuError),
    /// The tensor does not hold `f32`.
    #[error("the input does not hold f32")]
    InputType,
    /// The device or a tensor operation failed.
    #[error("the tensor operation {op} failed")]
    Tensor {
        /// The operation of the graph, or `upload`.
        op: &'static str,
        /// What candle says.
        #[source]
        source: candle_core::Error,
    },
}

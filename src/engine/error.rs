//! Errors of the engine, from reading a file to running a network.

use thiserror::Error;

/// Why an ONNX file is refused. Names in the messages come from the file.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The bytes are not an ONNX file.
    #[error("not an ONNX file")]
    Decode(#[from] prost::DecodeError),
    /// The file has no graph.
    #[error("the file holds no graph")]
    NoGraph,
    /// The file has a section that the importer does not support. Ignoring the section could change
    /// the meaning.
    #[error("the file holds {0}, which are not supported")]
    Section(&'static str),
    /// The version of the default operators is missing or not supported.
    #[error("opset {version} is outside {min}..={max}")]
    Opset {
        /// The version in the file; 0 if the file has none.
        version: i64,
        /// The oldest supported version.
        min: i64,
        /// The newest supported version.
        max: i64,
    },
    /// The number of inputs is not 1. Inputs that are initialisers or that nothing reads do not
    /// count.
    #[error("the graph reads {0} inputs without data, it must read 1")]
    InputCount(usize),
    /// The input has an unsupported type or shape.
    #[error("input '{name}': {reason}")]
    Input {
        /// Name of the input.
        name: String,
        /// Why the input is refused.
        reason: InputError,
    },
    /// An initialiser has an unsupported shape.
    #[error("initialiser '{name}': {reason}")]
    Initialiser {
        /// Name of the initialiser.
        name: String,
        /// Why the initialiser is refused.
        reason: TensorError,
    },
    /// Two values have the same name.
    #[error("the name '{0}' is given to two values")]
    Duplicate(String),
    /// An output is not computed from the input.
    #[error("output '{0}' is not computed from the input")]
    Output(String),
    /// The graph has no outputs.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// A node is not supported.
    #[error("node '{node}' ({op}): {reason}")]
    Node {
        /// Name of the node. Without a name, the name of its first output.
        node: String,
        /// Operator of the node.
        op: String,
        /// Why the node is refused.
        reason: NodeError,
    },
}

/// Why the input of a network is refused.
#[derive(Debug, Error)]
pub enum InputError {
    /// The input is not a tensor of 32-bit floats.
    #[error("the type is not a tensor of f32")]
    Type,
    /// The file has no shape for the input, and the caller gave none.
    #[error("the file has no shape for it")]
    NoShape,
    /// The number of axes, batch axis included, is not supported.
    #[error("{0} axes, at least 2 and at most 8 are supported")]
    Rank(usize),
    /// The file fixes a batch size other than 1.
    #[error("the batch size is {0}, it must be 1 or symbolic")]
    Batch(i64),
    /// The file leaves the size of an axis open, and the caller gave no shape.
    #[error("axis {0} is symbolic, the item shape must be given")]
    Symbolic(usize),
    /// The shape from the caller does not fit the shape in the file.
    #[error("the item shape {given:?} does not fit the file's {file:?}")]
    Incompatible {
        /// Item shape from the caller.
        given: Vec<usize>,
        /// Item shape in the file; 0 is an open size.
        file: Vec<usize>,
    },
    /// The item shape is empty or exceeds the limit of elements.
    #[error("the item shape {0:?} is empty or has too many elements")]
    Size(Vec<usize>),
}

/// Why a tensor of the file cannot be read.
#[derive(Debug, Error)]
pub enum TensorError {
    /// The data of the tensor is in another file.
    #[error("external data is not supported")]
    External,
    /// The element type is not supported.
    #[error("element type {0} is not supported")]
    Type(i32),
    /// The shape has negative sizes, too many axes or too many elements.
    #[error("the shape {0:?} is not supported")]
    Shape(Vec<i64>),
    /// The number of stored values does not match the shape.
    #[error("{found} values are stored, the shape has {expected}")]
    Length {
        /// Stored values.
        found: usize,
        /// Elements of the shape.
        expected: usize,
    },
}

/// Why a node is refused.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The operator is not from the standard's default domain.
    #[error("operators of the domain '{0}' are not supported")]
    Domain(String),
    /// The importer does not support the operator.
    #[error("the operator is not supported")]
    UnknownOp,
    /// The operator has no such attribute, or the node has two attributes of this name.
    #[error("attribute '{0}' is unknown")]
    UnknownAttribute(String),
    /// The attribute has another type than in the standard, refers to a function's attribute, or is
    /// text that is not UTF-8.
    #[error("attribute '{0}' has the wrong type")]
    AttributeType(String),
    /// A required attribute is missing.
    #[error("attribute '{0}' is missing")]
    AttributeMissing(&'static str),
    /// A known attribute has an unsupported value.
    #[error("attribute '{name}' has the unsupported value {value}")]
    AttributeValue {
        /// Name of the attribute.
        name: &'static str,
        /// Value of the attribute.
        value: String,
    },
    /// A required input is missing.
    #[error("input {0} is missing")]
    InputMissing(usize),
    /// The node has more inputs than the operator.
    #[error("{count} inputs, at most {max} are supported")]
    InputCount {
        /// Inputs of the node.
        count: usize,
        /// Inputs of the operator.
        max: usize,
    },
    /// The importer does not support this number of outputs, or an output has no name.
    #[error("{0} outputs are not supported")]
    OutputCount(usize),
    /// No earlier node computes the value. The value is unknown, computed later, or part of a
    /// cycle.
    #[error("the value '{0}' is read before it is computed")]
    Undefined(String),
    /// The name of the output is already taken.
    #[error("the value '{0}' is computed twice")]
    Redefined(String),
    /// The input must be known at import, but depends on the network's input.
    #[error("input {0} must be a constant")]
    NotConstant(usize),
    /// The input must depend on the network's input, but is a constant.
    #[error("input {0} must not be a constant")]
    UnexpectedConstant(usize),
    /// The elements have the wrong type, such as floats instead of integers.
    #[error("input {input} must hold {expected}")]
    ElementType {
        /// Index of the input.
        input: usize,
        /// The expected type.
        expected: &'static str,
    },
    /// The shape of an input is not supported.
    #[error("input {input} has the unsupported shape {shape:?}")]
    Shape {
        /// Index of the input.
        input: usize,
        /// ONNX shape of the input, with a batch of one.
        shape: Vec<usize>,
    },
    /// The value of a constant input is not supported.
    #[error("input {input} has the unsupported value {value}")]
    Value {
        /// Index of the input.
        input: usize,
        /// Value of the input.
        value: String,
    },
    /// The axis does not exist.
    #[error("axis {axis} is outside a value of {rank} axes")]
    Axis {
        /// The axis in the file; a negative axis counts from the end.
        axis: i64,
        /// Number of axes of the value.
        rank: usize,
    },
    /// The operation would mix the items of a batch.
    #[error("axis {0} is the batch: the operation would mix items")]
    MixesItems(usize),
    /// Integer division by 0, or an integer overflow.
    #[error("integer arithmetic fails")]
    IntegerArithmetic,
    /// The result is empty, has too many axes or too many elements.
    #[error("the result of shape {0:?} is empty or has too many elements")]
    ResultSize(Vec<usize>),
    /// The constants of the file have too many elements in total.
    #[error("constants have more than {0} elements")]
    ConstantLimit(usize),
    /// A tensor of the node cannot be read.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

/// Why a network cannot be loaded or run.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The shape of the tensor is not `[batch, item shape…]` with a batch of at least 1.
    #[error("the input has the shape {found:?}, one item has {expected:?}")]
    InputShape {
        /// Shape of the tensor.
        found: Vec<usize>,
        /// Item shape of the network.
        expected: Vec<usize>,
    },
    /// The network has more outputs than a manifest may name.
    #[error("{0} outputs are too many")]
    TooManyOutputs(usize),
    /// No kernels fit the request.
    #[error(transparent)]
    Select(#[from] super::cpu::SelectError),
    /// GPUs do not support this precision.
    #[cfg(feature = "cuda")]
    #[error("GPUs run networks in f32, tf32 or f16, not in {0}")]
    GpuPrecision(super::Precision),
    /// The GPU or one of its libraries failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] super::cuda::GpuError),
    /// The tensor does not hold `f32`.
    #[error("the input does not hold f32")]
    InputType,
    /// A tensor operation failed.
    #[error("the tensor operation {op} failed")]
    Tensor {
        /// The operation of the graph, or `upload`, `network` or `output`.
        op: &'static str,
        /// The error of candle.
        #[source]
        source: candle_core::Error,
    },
}

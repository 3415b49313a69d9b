// Where results go that are activations.

struct Epilogue {
    stride: u32, // of out, in its elements
    scale: f32,
    limit: f32,  // of a clamped activation
    first: u32,  // of experts, the first output of this piece
}

@group(0) @binding(5) var<storage, read_write> out: array<Outputs>;

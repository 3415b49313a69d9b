// Output and parameters of epilogues that write activations.

struct Epilogue {
    stride: u32, // of out, in its elements
    scale: f32,
    limit: f32,  // of a clamped activation
    first: u32,  // first output of this piece; experts only
}

@group(0) @binding(5) var<storage, read_write> out: array<Outputs>;

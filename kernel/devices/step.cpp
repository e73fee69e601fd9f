// The pass of a Llama-shaped decoder on a CPU: what `eager.py` says in torch's operations, in loops of its own.
//
// Activations and sums are float32 whatever the weights are stored in, so weights that came as bfloat16 lose nothing and take half the
// memory, which is what a step of few rows waits for; only where weights are PAIRS or integers are the inputs of products rounded, too.
// Every sum of a token is made in the same order whatever else is in the pass: a token depends on its own sequence to the last bit.
// `library.py` mirrors the structures below; keep both alike.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif
constexpr int PANEL = 2 * LANES;  // outputs whose weights lie together, [in][PANEL]: one column of inputs is two registers

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef int16_t Shorts __attribute__((vector_size(LANES * 4)));
enum Kind { FLOAT, BFLOAT, PAIRS, INT8, INT4 };

struct Linear {
    void* weight;        // panels; the last one is filled up with zeros
    const float* scale;  // [panels][groups of inputs][PANEL], of integers only
    const float* bias;   // or null
    int64_t in, out, kind;
};

struct Layer {
    const float *norm_in, *norm_mid, *q_norm, *k_norm;  // the last two may be null
    Linear qkv, out, gate_up, down;
};

struct Model {
    int64_t heads, kv_heads, head_dim;
    double eps;
    const Layer* layers;
    const float* norm;
    Linear head;
};

struct Pass {
    int64_t tokens, threads;
    const int64_t *row, *position;  // of each token
    const float *cos, *sin;         // [tokens, head_dim / 2]
    float *x, *scratch;             // [tokens, dim] in and out; [tokens, all that a layer keeps of one]
    void *keys, *values;            // buckets [layers, rows, kv_heads, capacity, head_dim], contiguous within a head
    int64_t of_layer, of_row, of_head;  // their strides
    int64_t narrow;                     // whether they are bfloat16, not float32
};

template <class V, class N>
static inline V read(const N* at) {
    V v;
    std::memcpy(&v, at, sizeof v);
    return v;
}

static inline Vec load(const float* p) { return read<Vec>(p); }

// The nearest numbers in bfloat16, of two equally near the even one. Not for infinities and what is no number.
static inline void narrow(uint16_t* to, const float* from, int64_t count) {
    int64_t i = 0;
#if defined(__AVX512BF16__)
    for (; i + 16 <= count; i += 16) _mm256_storeu_si256((__m256i*)(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
#endif
    for (; i < count; i++) {
        uint32_t bits = read<uint32_t>(from + i);
        to[i] = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
}

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: what it is added to becomes an integer, which is then in the lower bits

// How weights of a type lie in a panel: `place` is where number o of column k is, so that registers are filled by shifts and masks. Widening
// each number by itself takes three times the instructions. ROWS are as many tokens as the registers (16, or AVX-512's 32) can take at
// once, with two sums each. X is what they are multiplied by, from one token on.
struct Floats {
    typedef float Number;
    typedef const float* X;
    static constexpr int ROWS = LANES < 16 ? 6 : 12;
    static int64_t place(int64_t k, int64_t o) { return k * PANEL + o; }
    static float value(float number) { return number; }
    static void unpack(const float* at, Vec (&w)[2]) { w[0] = load(at), w[1] = load(at + LANES); }
};

// bfloat16 is the upper half of a float.
struct Bfloats : Floats {
    typedef uint16_t Number;
    static int64_t place(int64_t k, int64_t o) { return k * PANEL + o % LANES * 2 + o / LANES; }
    static float value(uint16_t number) {
        uint32_t bits = (uint32_t)number << 16;
        return read<float>(&bits);
    }
    static void unpack(const uint16_t* at, Vec (&w)[2]) {
        Ints words = read<Ints>(at);
        w[0] = (Vec)(words << 16), w[1] = (Vec)(words & (int32_t)0xffff0000);
    }
};

// bfloat16 by bfloat16, for processors that multiply two inputs of an output at a time: a word has both.
struct Pairs : Bfloats {
    typedef const uint16_t* X;
    static int64_t place(int64_t k, int64_t o) { return k / 2 * 2 * PANEL + o * 2 + k % 2; }
};

// Inputs of tokens as integers, for weights that are: [tokens, in], and a scale for each group of them, [tokens, groups].
struct Rounded {
    const int16_t* numbers;
    const float* scales;
};

constexpr int GROUP = 32;  // inputs of an output that have a scale in common, where weights are integers

static inline int64_t groups(int64_t in) { return (in + GROUP - 1) / GROUP; }

// Products of integers, GROUP inputs of an output at a time. A word has WORD inputs of an output, and two of them at a time, which lie in
// its halves at the same place, are brought to the tops of these: so weights count UNIT times, which the scale of the inputs takes
// back, and inputs have 12 bits, the most with which the sum of a group fits 32. Made into floats and multiplied as such, weights took twice the
// instructions, and a step of one row was no quicker than in bfloat16.
template <int BITS>
struct Integers {
    typedef uint8_t Number;
    typedef Rounded X;
    static constexpr int ROWS = 4, WORD = 32 / BITS, UNIT = 1 << (16 - BITS), MOST = 2047;
    static_assert((int64_t)GROUP * (1 << (BITS - 1)) * UNIT * MOST <= INT32_MAX, "a group's sum must fit");

    // Where the bits of number o of column k begin.
    static int64_t bit(int64_t k, int64_t o) { return ((k / WORD * PANEL + o) * 2 + k % 2) * 16 + k % WORD / 2 * BITS; }
    static float value(const uint8_t* panel, int64_t k, int64_t o) {
        int64_t at = bit(k, o);
        return (float)((int8_t)(panel[at / 8] << (8 - BITS - at % 8)) >> (8 - BITS));
    }
    static void unpack(const uint8_t* at, Shorts (&w)[WORD / 2]) {
        for (int i = 0; i < WORD / 2; i++) w[i] = read<Shorts>(at) << (16 - BITS * (i + 1)) & (int16_t)(0xffff << (16 - BITS));
    }
};

// To `sum` the products of each pair of neighbours are added.
static inline Ints add_pairs(Ints sum, Shorts a, Shorts b) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif defined(__AVX512BW__)
    return sum + (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return sum + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && !defined(__AVX__)
    return sum + (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return sum + ((Ints)a << 16 >> 16) * ((Ints)b << 16 >> 16) + ((Ints)a >> 16) * ((Ints)b >> 16);
#endif
}

// The same for pairs in bfloat16, into float32.
static inline Vec add_pairs(Vec sum, Ints a, Ints b) {
#if defined(__AVX512BF16__)
    return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    return sum + (Vec)(a << 16) * (Vec)(b << 16) + (Vec)(a & (int32_t)0xffff0000) * (Vec)(b & (int32_t)0xffff0000);
#endif
}

static inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }

static inline float sum(Vec v) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += v[i];
    return total;
}

// e^x to 2e-7 of it, for x up to 88; Cephes' reduction and polynomial.
static inline Vec exponential(Vec x) {
    x = x < -87.0f ? Vec{} - 87.0f : x;
    Vec n = x * 1.44269504f + ROUND;
    Ints power = (Ints)n << 23;
    n -= ROUND;
    Vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vec p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 0.5f;
    return (Vec)((Ints)(p * r * r + r + 1.0f) + power);
}

// R tokens by N panels that lie `step` numbers apart, a column `stride`: acc = x · W.
template <class W, int R, int N>
static inline void tile(const float* x, int64_t x_stride, const typename W::Number* w, int64_t stride, int64_t step, int64_t in, Vec (&acc)[R][N][2]) {
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) acc[r][n][0] = acc[r][n][1] = Vec{};
    for (int64_t k = 0; k < in; k++)
        for (int n = 0; n < N; n++) {
            Vec column[2];
            W::unpack(w + n * step + k * stride, column);
            for (int r = 0; r < R; r++) {
                float a = x[r * x_stride + k];
                acc[r][n][0] += column[0] * a;
                acc[r][n][1] += column[1] * a;
            }
        }
}

// The same of pairs: `columns(k, n, words)` gives two columns of a panel, k and the next, a word an output.
template <int R, int N, class Columns>
static inline void tile(const uint16_t* x, int64_t x_stride, Columns columns, int64_t in, Vec (&acc)[R][N][2]) {
    std::memset(acc, 0, sizeof acc);
    for (int64_t k = 0; k < in; k += 2)
        for (int n = 0; n < N; n++) {
            Ints words[2];
            columns(k, n, words);
            for (int r = 0; r < R; r++) {
                Ints two = Ints{} + read<int32_t>(x + r * x_stride + k);
                for (int i = 0; i < 2; i++) acc[r][n][i] = add_pairs(acc[r][n][i], words[i], two);
            }
        }
}

// Of panels of pairs, which have them so, `step` numbers apart.
static inline auto packed(const uint16_t* w, int64_t step) {
    return [=](int64_t k, int n, Ints (&words)[2]) {
        const uint16_t* at = w + n * step + k * PANEL;
        words[0] = read<Ints>(at), words[1] = read<Ints>(at + PANEL);
    };
}

template <class W, int R, int N>
static inline void multiply(const Linear& of, int64_t panel, const float* x, Vec (&acc)[R][N][2]) {
    int64_t step = of.in * PANEL;
    tile<W, R, N>(x, of.in, (const typename W::Number*)of.weight + panel * step, PANEL, step, of.in, acc);
}

template <class W, int R, int N>
static inline void multiply(const Linear& of, int64_t panel, const uint16_t* x, Vec (&acc)[R][N][2]) {
    int64_t step = of.in * PANEL;
    tile(x, of.in, packed((const uint16_t*)of.weight + panel * step, step), of.in, acc);
}

template <class W, int R, int N>
static inline void multiply(const Linear& of, int64_t panel, Rounded x, Vec (&acc)[R][N][2]) {
    constexpr int WORD = W::WORD;
    int64_t count = groups(of.in), step = of.in * PANEL * 4 / WORD;
    const uint8_t* weight = (const uint8_t*)of.weight + panel * step;
    std::memset(acc, 0, sizeof acc);
    for (int64_t g = 0; g < count; g++) {
        Ints part[R][N][2] = {};
        for (int64_t k = g * GROUP, end = std::min<int64_t>(k + GROUP, of.in); k < end; k += WORD)
            for (int n = 0; n < N; n++)
                for (int i = 0; i < 2; i++) {
                    Shorts w[WORD / 2];
                    W::unpack(weight + n * step + (k / WORD * PANEL + i * LANES) * 4, w);
                    for (int r = 0; r < R; r++)
                        for (int j = 0; j < WORD / 2; j++) {
                            Ints two = Ints{} + read<int32_t>(x.numbers + r * of.in + k + 2 * j);
                            part[r][n][i] = add_pairs(part[r][n][i], w[j], (Shorts)two);
                        }
                }
        for (int n = 0; n < N; n++)
            for (int i = 0; i < 2; i++) {
                Vec scale = load(of.scale + ((panel + n) * count + g) * PANEL + i * LANES);
                for (int r = 0; r < R; r++) acc[r][n][i] += __builtin_convertvector(part[r][n][i], Vec) * (scale * (x.scales[r * count + g] / W::UNIT));
            }
    }
}

// What becomes of outputs: they take the place of what is in y or are added to it; or the first half of each panel are gates, the second is
// what these let through, and y has half as many numbers. So gates take no memory.
enum How { SET, ADD, GATE };

struct Target {
    float* y;  // [tokens, width]
    int64_t width;
    How how;
};

static inline Target later(const Target& to, int64_t tokens) { return {to.y + tokens * to.width, to.width, to.how}; }

// Sums of the outputs from `first` on, of one token.
static inline void put(const Linear& of, int64_t first, const Vec (&sums)[2], const Target& to) {
    if (first + PANEL <= of.out) {
        for (int i = 0; i < 2; i++) {
            int64_t at = first + i * LANES;
            Vec value = of.bias ? sums[i] + load(of.bias + at) : sums[i];
            store(to.y + at, to.how == ADD ? load(to.y + at) + value : value);
        }
        return;
    }
    for (int64_t o = first; o < of.out; o++) {
        float value = sums[(o - first) / LANES][(o - first) % LANES];
        if (of.bias) value += of.bias[o];
        to.y[o] = to.how == ADD ? to.y[o] + value : value;
    }
}

// silu(gate) * up, from place `first` on. Gates have no bias.
static inline void gate(int64_t first, const Vec (&sums)[2], const Target& to) {
    Vec down = -sums[0];
    down = down > 88.0f ? Vec{} + 88.0f : down;
    Vec value = sums[0] / (exponential(down) + 1.0f) * sums[1];
    std::memcpy(to.y + first, &value, std::min<int64_t>(LANES, to.width - first) * sizeof(float));
}

// The outputs of N panels for R tokens.
template <class W, int R, int N>
static void outputs(const Linear& of, int64_t panel, typename W::X x, const Target& to) {
    Vec acc[R][N][2];
    multiply<W, R, N>(of, panel, x, acc);
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) {
            int64_t first = (panel + n) * PANEL;
            to.how == GATE ? gate(first / 2, acc[r][n], later(to, r)) : put(of, first, acc[r][n], later(to, r));
        }
}

template <class T>
static inline const T* later(const Linear& of, const T* x, int64_t tokens) { return x + tokens * of.in; }

static inline Rounded later(const Linear& of, Rounded x, int64_t tokens) {
    return {x.numbers + tokens * of.in, x.scales + tokens * groups(of.in)};
}

// R tokens, at most ROWS, by some panels. Few tokens take several panels at once, so that enough sums are under way.
template <class W, int R>
static void tokens_by_panels(int64_t rows, const Linear& of, int64_t panel, int64_t end, typename W::X x, const Target& to) {
    constexpr int N = R == 1 ? 4 : R <= 3 ? 2 : 1;
    if (rows == R) {
        for (; panel + N <= end; panel += N) outputs<W, R, N>(of, panel, x, to);
        for (; panel < end; panel++) outputs<W, R, 1>(of, panel, x, to);
    } else if constexpr (R > 1) tokens_by_panels<W, R - 1>(rows, of, panel, end, x, to);
}

// All tokens by some panels.
template <class W>
static void panels(const Linear& of, int64_t panel, int64_t end, typename W::X x, int64_t tokens, const Target& to) {
    int64_t tiles = (tokens + W::ROWS - 1) / W::ROWS;
    for (int64_t t = 0; t < tiles; t++) {
        int64_t first = t * tokens / tiles, rows = (t + 1) * tokens / tiles - first;
        tokens_by_panels<W, W::ROWS>(rows, of, panel, end, later(of, x, first), later(to, first));
    }
}

// The inputs of tokens as weights want them: here, as they are. Each thread makes its own: that is little beside what it does with them, and
// no thread waits for it.
static const float* inputs(const Linear&, const float* x, int64_t, const float*) { return x; }

static const uint16_t* inputs(const Linear& of, const float* x, int64_t tokens, const uint16_t*) {
    static thread_local std::vector<uint16_t> numbers;
    numbers.resize(tokens * of.in);
    narrow(numbers.data(), x, tokens * of.in);
    return numbers.data();
}

static Rounded inputs(const Linear& of, const float* x, int64_t tokens, Rounded) {
    constexpr int MOST = Integers<8>::MOST;
    static thread_local std::vector<int16_t> numbers;
    static thread_local std::vector<float> scales;
    numbers.resize(tokens * of.in);
    scales.clear();
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t first = 0; first < of.in; first += GROUP) {
            const float* from = x + t * of.in + first;
            int16_t* to = numbers.data() + t * of.in + first;
            int64_t count = std::min<int64_t>(GROUP, of.in - first);
            uint32_t most = 0;  // of numbers without their signs; as integers these have the same order, and are compared many at a time
            for (int64_t i = 0; i < count; i++) most = std::max(most, read<uint32_t>(from + i) & 0x7fffffff);
            float largest = read<float>(&most), scale = largest > 1e-30f ? MOST / largest : 0.0f;
            for (int64_t i = 0; i < count; i++) {
                float number = from[i] * scale + ROUND;
                to[i] = (int16_t)read<uint32_t>(&number);
            }
            scales.push_back(largest / MOST);
        }
    return {numbers.data(), scales.data()};
}

template <class W>
static void product(const Linear& of, const float* x, int64_t tokens, const Target& to) {
    int64_t all = (of.out + PANEL - 1) / PANEL, few = tokens > W::ROWS ? 1 : 4;
    typename W::X from = inputs(of, x, tokens, typename W::X());
#pragma omp for schedule(dynamic)
    for (int64_t panel = 0; panel < all; panel += few) panels<W>(of, panel, std::min(panel + few, all), from, tokens, to);
}

// x [tokens, in] · weight. Within a parallel region; ends with a barrier.
static void linear(const Linear& of, const float* x, int64_t tokens, const Target& to) {
    switch (of.kind) {
        case FLOAT: return product<Floats>(of, x, tokens, to);
        case BFLOAT: return product<Bfloats>(of, x, tokens, to);
        case PAIRS: return product<Pairs>(of, x, tokens, to);
        case INT8: return product<Integers<8>>(of, x, tokens, to);
        case INT4: return product<Integers<4>>(of, x, tokens, to);
    }
}

static void norm(const float* x, const float* weight, float* y, int64_t dim, float eps) {
    float lanes[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES)
        for (int l = 0; l < LANES; l++) lanes[l] += x[i + l] * x[i + l];
    float total = 0;
    for (int l = 0; l < LANES; l++) total += lanes[l];
    for (; i < dim; i++) total += x[i] * x[i];
    float scale = 1.0f / std::sqrt(total / dim + eps);
    for (i = 0; i < dim; i++) y[i] = x[i] * scale * weight[i];
}

static void norms(const float* x, const float* weight, float* y, int64_t tokens, int64_t dim, float eps) {
#pragma omp for
    for (int64_t t = 0; t < tokens; t++) norm(x + t * dim, weight, y + t * dim, dim, eps);
}

static void rotate(float* x, const float* cos, const float* sin, int64_t dim) {
    for (int64_t i = 0; i < dim / 2; i++) {
        float a = x[i], b = x[i + dim / 2];
        x[i] = a * cos[i] - b * sin[i];
        x[i + dim / 2] = b * cos[i] + a * sin[i];
    }
}

static inline void keep(float* to, const float* from, int64_t count) { std::memcpy(to, from, count * sizeof(float)); }

static inline void keep(uint16_t* to, const float* from, int64_t count) { narrow(to, from, count); }

// Normalise and rotate queries and keys, and put keys and values where they belong. `keys` and `values` are those of the layer.
template <class T>
static void heads(const Model& m, const Layer& layer, const Pass& pass, float* qkv, T* keys, T* values) {
    int64_t dim = m.head_dim, kv = m.kv_heads, all = m.heads + 2 * kv;
#pragma omp for
    for (int64_t t = 0; t < pass.tokens; t++) {
        const float *cos = pass.cos + t * dim / 2, *sin = pass.sin + t * dim / 2;
        int64_t place = pass.row[t] * pass.of_row + pass.position[t] * dim;
        for (int64_t h = 0; h < m.heads + kv; h++) {
            float* head = qkv + (t * all + h) * dim;
            const float* weight = h < m.heads ? layer.q_norm : layer.k_norm;
            if (weight) norm(head, weight, head, dim, m.eps);
            rotate(head, cos, sin, dim);
        }
        for (int64_t h = 0; h < kv; h++) {
            const float* key = qkv + (t * all + m.heads + h) * dim;
            keep(keys + place + h * pass.of_head, key, dim);
            keep(values + place + h * pass.of_head, key + kv * dim, dim);
        }
    }
}

// Of two vectors, with LANES / SIZE numbers in SIZE parts each, one in which these have half as many parts.
template <int SIZE, int... I>
static inline Vec halve(Vec a, Vec b, std::integer_sequence<int, I...>) {
    constexpr int HALF = SIZE / 2;
    return __builtin_shuffle(a, b, Ints{I / HALF * SIZE + I % HALF...}) + __builtin_shuffle(a, b, Ints{I / HALF * SIZE + I % HALF + HALF...});
}

// The sums of SIZE vectors, a lane each, if there are LANES of them.
template <int SIZE>
static inline Vec sums(const Vec* v) {
    if constexpr (SIZE == 1) return v[0];
    else {
        Vec half[SIZE / 2];
        for (int i = 0; i < SIZE / 2; i++) half[i] = halve<SIZE>(v[2 * i], v[2 * i + 1], std::make_integer_sequence<int, LANES>{});
        return sums<SIZE / 2>(half);
    }
}

// Scores of R queries with PANEL keys.
template <int R>
static void compare(const float* q, const float* keys, int64_t dim, float* scores, int64_t stride) {
    for (int j = 0; j < PANEL; j += LANES)
        for (int r = 0; r < R; r++) {
            Vec products[LANES] = {};
            for (int64_t i = 0; i < dim; i += LANES)
                for (int l = 0; l < LANES; l++) products[l] += load(q + r * dim + i) * load(keys + (j + l) * dim + i);
            store(scores + r * stride + j, sums<LANES>(products));
        }
}

// In a square of words those D lines and D columns apart change places, then those half as far.
template <int D, int... I>
static inline void swap(Ints& a, Ints& b, std::integer_sequence<int, I...>) {
    Ints first = __builtin_shuffle(a, b, Ints{(I & D ? LANES + I - D : I)...});
    b = __builtin_shuffle(a, b, Ints{(I & D ? LANES + I : I + D)...});
    a = first;
}

template <int D = LANES / 2>
static inline void transpose(Ints (&lines)[LANES]) {
    for (int i = 0; i < LANES; i++)
        if (!(i & D)) swap<D>(lines[i], lines[i + D], std::make_integer_sequence<int, LANES>{});
    if constexpr (D > 1) transpose<D / 2>(lines);
}

// The same in bfloat16, as products of pairs: keys lie like the inputs of an output, and are brought into a panel. Of float32 that would be
// twice as many words, which takes longer than what it saves where few queries attend together.
template <int R>
static void compare(const uint16_t* q, const uint16_t* keys, int64_t dim, float* scores, int64_t stride) {
    static thread_local std::vector<uint16_t> panel;
    panel.resize(dim * PANEL);
    for (int64_t i = 0; i < dim; i += 2 * LANES)
        for (int j = 0; j < PANEL; j += LANES) {
            Ints lines[LANES];
            for (int l = 0; l < LANES; l++) lines[l] = read<Ints>(keys + (j + l) * dim + i);
            transpose(lines);
            for (int l = 0; l < LANES; l++) std::memcpy(panel.data() + (i / 2 + l) * 2 * PANEL + 2 * j, &lines[l], sizeof lines[l]);
        }
    Vec acc[R][1][2];
    tile(q, dim, packed(panel.data(), 0), dim, acc);
    for (int r = 0; r < R; r++)
        for (int i = 0; i < 2; i++) store(scores + r * stride + i * LANES, acc[r][0][i]);
}

// The shares of one of the first n of `scores`, of which there are `all`, whole vectors; the others get nothing.
template <class T>
static void softmax(float* scores, int64_t n, int64_t all, T* shares) {
    Ints places;
    for (int l = 0; l < LANES; l++) places[l] = l;
    std::fill(scores + n, scores + all, -INFINITY);
    Vec largest = load(scores), total{};
    for (int64_t i = LANES; i < all; i += LANES) largest = load(scores + i) > largest ? load(scores + i) : largest;
    float most = largest[0];
    for (int l = 1; l < LANES; l++) most = std::max(most, largest[l]);
    for (int64_t i = 0; i < all; i += LANES) {
        Vec e = exponential(load(scores + i) - most);
        e = places + (int32_t)i < (int32_t)n ? e : Vec{};
        total += e;
        store(scores + i, e);
    }
    float scale = 1.0f / sum(total);
    for (int64_t i = 0; i < all; i += LANES) {
        Vec share = load(scores + i) * scale;
        keep(shares + i, (const float*)&share, LANES);
    }
}

// Queries, at most ROWS, that share a key head attend together, so that keys and values come from memory once. Query i sees `seen[i]` keys.
template <class T>
struct Together {
    static constexpr int ROWS = Floats::ROWS;
    const T* q;  // [queries, dim], divided by the root of dim
    const T *keys, *values;
    int64_t dim, queries;
    int64_t seen[ROWS];
    float* y[ROWS];
};

// N panels of values [keys, dim] by the shares that R queries have in them.
template <int R, int N>
static inline void mix(const float* shares, int64_t stride, const float* values, int64_t dim, int64_t keys, Vec (&acc)[R][N][2]) {
    tile<Floats, R, N>(shares, stride, values, dim, PANEL, keys, acc);
}

// Of the numbers of two keys words that have one of each: those of the first half of a panel and of the second.
template <int... I>
static inline void interleave(const uint16_t* a, const uint16_t* b, Ints (&words)[2], std::integer_sequence<int, I...>) {
    Shorts one = read<Shorts>(a), other = b ? read<Shorts>(b) : Shorts{};
    words[0] = (Ints)__builtin_shuffle(one, other, Shorts{I % 2 * PANEL + I / 2 ...});
    words[1] = (Ints)__builtin_shuffle(one, other, Shorts{I % 2 * PANEL + I / 2 + LANES...});
}

// The same in bfloat16, as products of pairs.
template <int R, int N>
static inline void mix(const uint16_t* shares, int64_t stride, const uint16_t* values, int64_t dim, int64_t keys, Vec (&acc)[R][N][2]) {
    auto columns = [=](int64_t k, int n, Ints (&words)[2]) {
        const uint16_t* at = values + k * dim + n * PANEL;
        interleave(at, k + 1 < keys ? at + dim : nullptr, words, std::make_integer_sequence<int, PANEL>{});
    };
    tile(shares, stride, columns, keys, acc);
}

template <int R, int N, class T>
static inline void mix(const Together<T>& these, const T* shares, int64_t stride, int64_t most, int64_t& d) {
    for (; d + N * PANEL <= these.dim; d += N * PANEL) {
        Vec acc[R][N][2];
        mix<R, N>(shares, stride, these.values + d, these.dim, most, acc);
        for (int r = 0; r < R; r++)
            for (int i = 0; i < 2 * N; i++) store(these.y[r] + d + i * LANES, acc[r][i / 2][i % 2]);
    }
}

// Have numbers brought near that will soon be wanted: of a page of memory or two the processor does not see by itself that all of it is read.
template <class T>
static inline void fetch(const T* from, int64_t count) {
    for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
}

template <class T, int R = Together<T>::ROWS>
static void attend(const Together<T>& these) {
    if (these.queries != R) {
        if constexpr (R > 1) attend<T, R - 1>(these);
        return;
    }
    static thread_local std::vector<float> scores;
    static thread_local std::vector<T> shares;
    int64_t dim = these.dim, most = *std::max_element(these.seen, these.seen + R), stride = (most + PANEL - 1) / PANEL * PANEL;
    if ((int64_t)scores.size() < R * stride) scores.resize(R * stride), shares.resize(R * stride);
    for (int64_t j = 0; j < stride; j += PANEL) {
        if (j + PANEL < stride) fetch(these.keys + (j + PANEL) * dim, PANEL * dim);
        fetch(these.values + j * dim, PANEL * dim);
        compare<R>(these.q, these.keys + j * dim, dim, scores.data() + j, stride);
    }
    for (int r = 0; r < R; r++) softmax(scores.data() + r * stride, these.seen[r], stride, shares.data() + r * stride);
    int64_t d = 0;
    if constexpr (4 * R <= Together<T>::ROWS * 2) mix<R, 2>(these, shares.data(), stride, most, d);
    mix<R, 1>(these, shares.data(), stride, most, d);
}

// Tokens of a row, one after another, that attend together.
struct Block {
    int64_t token, count;
};

static std::vector<Block> blocks(const Model& m, const Pass& pass) {
    int64_t most = std::max<int64_t>(1, Floats::ROWS / (m.heads / m.kv_heads));
    std::vector<Block> found;
    for (int64_t t = 0; t < pass.tokens; t++) {
        bool goes_on = !found.empty() && found.back().count < most && pass.row[t] == pass.row[t - 1];
        goes_on ? (void)found.back().count++ : found.push_back({t, 1});
    }
    return found;
}

// The queries of a block, those of key head h. `qkv` and `y` are those of the pass.
template <class T>
static void attend(const Model& m, const Pass& pass, Block block, int64_t h, const float* qkv, const T* keys, const T* values, float* y) {
    static thread_local std::vector<float> scaled;
    static thread_local std::vector<T> queries;
    constexpr int64_t ROWS = Together<T>::ROWS;
    int64_t dim = m.head_dim, group = m.heads / m.kv_heads, all = m.heads + 2 * m.kv_heads, count = block.count * group;
    int64_t place = pass.row[block.token] * pass.of_row + h * pass.of_head;
    float scale = 1.0f / std::sqrt((float)dim);
    scaled.resize(dim), queries.resize(ROWS * dim);
    for (int64_t first = 0; first < count; first += ROWS) {
        Together<T> these = {queries.data(), keys + place, values + place, dim, std::min(ROWS, count - first), {}, {}};
        for (int64_t i = 0; i < these.queries; i++) {
            int64_t t = block.token + (first + i) / group, head = h * group + (first + i) % group;
            for (int64_t d = 0; d < dim; d++) scaled[d] = qkv[(t * all + head) * dim + d] * scale;
            keep(queries.data() + i * dim, scaled.data(), dim);
            these.seen[i] = pass.position[t] + 1;
            these.y[i] = y + (t * m.heads + head) * dim;
        }
        attend(these);
    }
}

template <class W>
static void pack(const Linear& of, const void* weight) {
    typedef typename W::Number Number;
    const Number* from = (const Number*)weight;
#pragma omp parallel for
    for (int64_t o = 0; o < of.out; o++) {
        Number* to = (Number*)of.weight + o / PANEL * of.in * PANEL;
        for (int64_t k = 0; k < of.in; k++) to[W::place(k, o % PANEL)] = from[o * of.in + k];
    }
}

// Of integers, which come as bytes. Pre: the panels are zeros.
template <int BITS>
static void pack_integers(const Linear& of, const void* weight) {
    const uint8_t* from = (const uint8_t*)weight;
#pragma omp parallel for
    for (int64_t o = 0; o < of.out; o++) {
        uint8_t* to = (uint8_t*)of.weight + o / PANEL * of.in * PANEL * BITS / 8;
        for (int64_t k = 0; k < of.in; k++) {
            int64_t at = Integers<BITS>::bit(k, o % PANEL);
            to[at / 8] |= (from[o * of.in + k] & ((1 << BITS) - 1)) << at % 8;
        }
    }
}

template <class W>
static void rows(const Linear& of, const int64_t* rows, int64_t count, float* y) {
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        const auto* from = (const typename W::Number*)of.weight + rows[i] / PANEL * of.in * PANEL;
        for (int64_t k = 0; k < of.in; k++) y[i * of.in + k] = W::value(from[W::place(k, rows[i] % PANEL)]);
    }
}

template <int BITS>
static void integer_rows(const Linear& of, const int64_t* rows, int64_t count, float* y) {
#pragma omp parallel for
    for (int64_t i = 0; i < count; i++) {
        int64_t panel = rows[i] / PANEL, o = rows[i] % PANEL;
        const uint8_t* from = (const uint8_t*)of.weight + panel * of.in * PANEL * BITS / 8;
        for (int64_t k = 0; k < of.in; k++) {
            float scale = of.scale[(panel * groups(of.in) + k / GROUP) * PANEL + o];
            y[i * of.in + k] = Integers<BITS>::value(from, k, o) * scale;
        }
    }
}

// Layers `first` to before `last` of a pass whose keys and values are of type T.
template <class T>
static void layers(const Model& m, const Pass& pass, int64_t first, int64_t last) {
    std::vector<Block> all = blocks(m, pass);
#pragma omp parallel num_threads(pass.threads)
    for (int64_t index = first; index < last; index++) {
        const Layer& layer = m.layers[index];
        int64_t n = pass.tokens, dim = layer.qkv.in;
        float *h = pass.scratch, *qkv = h + n * dim, *attended = qkv + n * layer.qkv.out;
        float* active = attended + n * layer.out.in;
        T *keys = (T*)pass.keys + index * pass.of_layer, *values = (T*)pass.values + index * pass.of_layer;
        norms(pass.x, layer.norm_in, h, n, dim, m.eps);
        linear(layer.qkv, h, n, {qkv, layer.qkv.out, SET});
        heads(m, layer, pass, qkv, keys, values);
#pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < (int64_t)all.size() * m.kv_heads; item++)
            attend(m, pass, all[item / m.kv_heads], item % m.kv_heads, qkv, keys, values, attended);
        linear(layer.out, attended, n, {pass.x, dim, ADD});
        norms(pass.x, layer.norm_mid, h, n, dim, m.eps);
        linear(layer.gate_up, h, n, {active, layer.down.in, GATE});
        linear(layer.down, active, n, {pass.x, dim, ADD});
    }
}

extern "C" {

int64_t kernos_panel() { return PANEL; }

int64_t kernos_group() { return GROUP; }

// Whether products of bfloat16 by bfloat16 are an instruction here.
int64_t kernos_pairs() {
#if defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

// Bring the numbers of a weight [out, in] into panels of zeros.
void kernos_pack(const Linear* of, const void* weight) {
    switch (of->kind) {
        case FLOAT: return pack<Floats>(*of, weight);
        case BFLOAT: return pack<Bfloats>(*of, weight);
        case PAIRS: return pack<Pairs>(*of, weight);
        case INT8: return pack_integers<8>(*of, weight);
        case INT4: return pack_integers<4>(*of, weight);
    }
}

// Rows of a packed weight as floats [count, in]: looking up the embeddings that a head is tied to.
void kernos_rows(const Linear* of, const int64_t* rows, int64_t count, float* y) {
    switch (of->kind) {
        case FLOAT: return ::rows<Floats>(*of, rows, count, y);
        case BFLOAT: return ::rows<Bfloats>(*of, rows, count, y);
        case PAIRS: return ::rows<Pairs>(*of, rows, count, y);
        case INT8: return integer_rows<8>(*of, rows, count, y);
        case INT4: return integer_rows<4>(*of, rows, count, y);
    }
}

void kernos_linear(const Linear* of, const float* x, float* y, int64_t tokens, int64_t threads) {
#pragma omp parallel num_threads(threads)
    linear(*of, x, tokens, {y, of->out, SET});
}

// Logits y [tokens, vocabulary] of x [tokens, dim], which is overwritten.
void kernos_logits(const Model* m, float* x, float* y, int64_t tokens, int64_t threads) {
#pragma omp parallel num_threads(threads)
    {
        norms(x, m->norm, x, tokens, m->head.in, m->eps);
        linear(m->head, x, tokens, {y, m->head.out, SET});
    }
}

// Layers `first` to before `last` of a pass.
void kernos_layers(const Model* model, const Pass* pass, int64_t first, int64_t last) {
    pass->narrow ? layers<uint16_t>(*model, *pass, first, last) : layers<float>(*model, *pass, first, last);
}

}  // extern "C"

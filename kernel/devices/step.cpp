// The pass of a Llama-shaped decoder on a CPU: what `eager.py` says in torch's operations, in loops of its own.
//
// Activations and sums are float32 whatever the weights are stored in, so weights that came as bfloat16 lose nothing and take half the
// memory, which is what a step of few rows waits for. Every sum of a token is made in the same order whatever else is in the pass: a token
// depends on its own sequence to the last bit. `compiled.py` mirrors the structures below; keep both alike.

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
enum Kind { FLOAT, BFLOAT, INT8 };

struct Linear {
    void* weight;        // panels; the last one is filled up with zeros
    const float* scale;  // [panels][groups of inputs][PANEL], INT8 only
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
    float *keys, *values;           // buckets [layers, rows, kv_heads, capacity, head_dim], contiguous within a head
    int64_t of_layer, of_row, of_head;  // their strides
};

template <class V, class N>
static inline V read(const N* at) {
    V v;
    std::memcpy(&v, at, sizeof v);
    return v;
}

static inline Vec load(const float* p) { return read<Vec>(p); }

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: what it is added to becomes an integer, which is then in the lower bits

// How weights of a type lie in a panel: `place` is where number o of column k is, so that registers are filled by shifts and masks. Widening
// each number by itself takes three times the instructions. ROWS are as many tokens as AVX2's 16 registers can take at once, with two sums
// each. X is what they are multiplied by, from one token on.
struct Floats {
    typedef float Number;
    typedef const float* X;
    static constexpr int ROWS = 6;
    static int64_t place(int64_t k, int64_t o) { return k * PANEL + o; }
    static float value(float number) { return number; }
    static void unpack(const float* at, Vec (&w)[2]) { w[0] = load(at), w[1] = load(at + LANES); }
};

struct Bfloats {  // the upper half of a float
    typedef uint16_t Number;
    typedef const float* X;
    static constexpr int ROWS = 6;
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

// Inputs of tokens as integers, for weights that are: [tokens, in], and a scale for each group of them, [tokens, groups].
struct Rounded {
    const int16_t* numbers;
    const float* scales;
};

// Products of integers, GROUP inputs of an output at a time, as these have a scale in common. A word has four inputs of an output, and two
// of them at a time take the upper halves of 16 bits: so weights count as multiples of UNIT, which `Linear::scale` takes back, and inputs
// have 12 bits, the most with which the sum of a group fits 32. Made into floats and multiplied as such, weights took twice the
// instructions, and a step of one row was no quicker than in bfloat16.
struct Int8s {
    typedef int8_t Number;
    typedef Rounded X;
    static constexpr int ROWS = 4, GROUP = 32, WORD = 4, UNIT = 256, MOST = 2047;
    static_assert((int64_t)GROUP * 127 * UNIT * MOST <= INT32_MAX, "a group's sum must fit");
    static int64_t place(int64_t k, int64_t o) {
        return k / WORD * WORD * PANEL + o / LANES * LANES * WORD + o % LANES * WORD + (k % WORD / 2 + k % 2 * 2);
    }
    static int64_t groups(int64_t in) { return (in + GROUP - 1) / GROUP; }
    static float value(int8_t number) { return (float)number * UNIT; }
    static void unpack(const int8_t* at, Shorts (&w)[2]) {
        w[0] = read<Shorts>(at) << 8, w[1] = read<Shorts>(at) & (int16_t)0xff00;
    }
};

// Of each pair of neighbours the sum of their products.
static inline Ints pairs(Shorts a, Shorts b) {
#if defined(__AVX512BW__)
    return (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif defined(__AVX2__) && !defined(__AVX512F__)
    return (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__) && !defined(__AVX__)
    return (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
#else
    return ((Ints)a << 16 >> 16) * ((Ints)b << 16 >> 16) + ((Ints)a >> 16) * ((Ints)b >> 16);
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

template <class W, int R, int N>
static inline void multiply(const Linear& of, int64_t panel, const float* x, Vec (&acc)[R][N][2]) {
    int64_t step = of.in * PANEL;
    tile<W, R, N>(x, of.in, (const typename W::Number*)of.weight + panel * step, PANEL, step, of.in, acc);
}

template <class W, int R, int N>
static inline void multiply(const Linear& of, int64_t panel, Rounded x, Vec (&acc)[R][N][2]) {
    int64_t groups = W::groups(of.in), step = of.in * PANEL;
    const int8_t* weight = (const int8_t*)of.weight + panel * step;
    std::memset(acc, 0, sizeof acc);
    for (int64_t g = 0; g < groups; g++) {
        Ints part[R][N][2] = {};
        for (int64_t k = g * W::GROUP, end = std::min<int64_t>(k + W::GROUP, of.in); k < end; k += W::WORD)
            for (int n = 0; n < N; n++)
                for (int i = 0; i < 2; i++) {
                    Shorts w[2];
                    W::unpack(weight + n * step + k * PANEL + i * LANES * W::WORD, w);
                    for (int r = 0; r < R; r++) {
                        const int16_t* at = x.numbers + r * of.in + k;
                        part[r][n][i] += pairs(w[0], (Shorts)(Ints{} + read<int32_t>(at))) + pairs(w[1], (Shorts)(Ints{} + read<int32_t>(at + 2)));
                    }
                }
        for (int n = 0; n < N; n++)
            for (int i = 0; i < 2; i++) {
                Vec scale = load(of.scale + ((panel + n) * groups + g) * PANEL + i * LANES);
                for (int r = 0; r < R; r++) acc[r][n][i] += __builtin_convertvector(part[r][n][i], Vec) * (scale * x.scales[r * groups + g]);
            }
    }
}

// Sums of the outputs from `first` on, of one token, become what they are in y, or are added to it.
static inline void put(const Linear& of, int64_t first, const Vec (&sums)[2], float* y, bool added) {
    if (first + PANEL <= of.out) {
        for (int i = 0; i < 2; i++) {
            int64_t at = first + i * LANES;
            Vec value = of.bias ? sums[i] + load(of.bias + at) : sums[i];
            store(y + at, added ? load(y + at) + value : value);
        }
        return;
    }
    for (int64_t o = first; o < of.out; o++) {
        float value = sums[(o - first) / LANES][(o - first) % LANES];
        if (of.bias) value += of.bias[o];
        y[o] = added ? y[o] + value : value;
    }
}

// The outputs of N panels for R tokens. `added`: they are added to what is in y.
template <class W, int R, int N>
static void outputs(const Linear& of, int64_t panel, typename W::X x, float* y, bool added) {
    Vec acc[R][N][2];
    multiply<W, R, N>(of, panel, x, acc);
    for (int r = 0; r < R; r++)
        for (int n = 0; n < N; n++) put(of, (panel + n) * PANEL, acc[r][n], y + r * of.out, added);
}

static inline const float* later(const Linear& of, const float* x, int64_t tokens) { return x + tokens * of.in; }

static inline Rounded later(const Linear& of, Rounded x, int64_t tokens) {
    return {x.numbers + tokens * of.in, x.scales + tokens * Int8s::groups(of.in)};
}

// All tokens by up to 4 panels. Few tokens take several panels at once, so that enough sums are under way.
template <class W>
static void panels(const Linear& of, int64_t panel, int64_t count, typename W::X x, float* y, int64_t tokens, bool added) {
    int64_t tiles = (tokens + W::ROWS - 1) / W::ROWS;
    for (int64_t t = 0; t < tiles; t++) {
        int64_t first = t * tokens / tiles, rows = (t + 1) * tokens / tiles - first;
        typename W::X from = later(of, x, first);
        float* to = y + first * of.out;
        int64_t p = panel, end = panel + count;
        switch (rows) {
            case 1:
                for (; p + 4 <= end; p += 4) outputs<W, 1, 4>(of, p, from, to, added);
                for (; p < end; p++) outputs<W, 1, 1>(of, p, from, to, added);
                break;
            case 2:
                for (; p + 2 <= end; p += 2) outputs<W, 2, 2>(of, p, from, to, added);
                for (; p < end; p++) outputs<W, 2, 1>(of, p, from, to, added);
                break;
            case 3:
                for (; p + 2 <= end; p += 2) outputs<W, 3, 2>(of, p, from, to, added);
                for (; p < end; p++) outputs<W, 3, 1>(of, p, from, to, added);
                break;
            case 4:
                for (; p < end; p++) outputs<W, 4, 1>(of, p, from, to, added);
                break;
            case 5:
                for (; p < end; p++) outputs<W, 5, 1>(of, p, from, to, added);
                break;
            case 6:
                for (; p < end; p++) outputs<W, 6, 1>(of, p, from, to, added);
                break;
        }
    }
}

// The inputs of tokens as integers. Each thread makes its own: that is little beside what it does with them, and no thread waits for it.
static Rounded rounded(const Linear& of, const float* x, int64_t tokens) {
    static thread_local std::vector<int16_t> numbers;
    static thread_local std::vector<float> scales;
    numbers.resize(tokens * of.in);
    scales.clear();
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t first = 0; first < of.in; first += Int8s::GROUP) {
            const float* from = x + t * of.in + first;
            int16_t* to = numbers.data() + t * of.in + first;
            int64_t count = std::min<int64_t>(Int8s::GROUP, of.in - first);
            uint32_t most = 0;  // of numbers without their signs; as integers these have the same order, and are compared many at a time
            for (int64_t i = 0; i < count; i++) most = std::max(most, read<uint32_t>(from + i) & 0x7fffffff);
            float largest = read<float>(&most), scale = largest > 1e-30f ? Int8s::MOST / largest : 0.0f;
            for (int64_t i = 0; i < count; i++) {
                float number = from[i] * scale + ROUND;
                to[i] = (int16_t)read<uint32_t>(&number);
            }
            scales.push_back(largest / Int8s::MOST);
        }
    return {numbers.data(), scales.data()};
}

// y [tokens, out] = or += x [tokens, in] · weight. Within a parallel region; ends with a barrier.
static void linear(const Linear& of, const float* x, float* y, int64_t tokens, bool added) {
    int64_t all = (of.out + PANEL - 1) / PANEL;
    Rounded integers = of.kind == INT8 ? rounded(of, x, tokens) : Rounded{};
#pragma omp for schedule(dynamic)
    for (int64_t chunk = 0; chunk < (all + 3) / 4; chunk++) {
        int64_t panel = chunk * 4, count = std::min<int64_t>(4, all - panel);
        if (of.kind == FLOAT) panels<Floats>(of, panel, count, x, y, tokens, added);
        if (of.kind == BFLOAT) panels<Bfloats>(of, panel, count, x, y, tokens, added);
        if (of.kind == INT8) panels<Int8s>(of, panel, count, integers, y, tokens, added);
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

// Normalise and rotate queries and keys, and put keys and values where they belong. `keys` and `values` are those of the layer.
static void heads(const Model& m, const Layer& layer, const Pass& pass, float* qkv, float* keys, float* values) {
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
            std::memcpy(keys + place + h * pass.of_head, key, dim * sizeof(float));
            std::memcpy(values + place + h * pass.of_head, key + kv * dim, dim * sizeof(float));
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

// Scores of a query with n keys, and with what lies behind them up to the next multiple of LANES, for which there is room.
static void compare(const float* q, const float* keys, int64_t dim, int64_t n, float scale, float* scores) {
    for (int64_t j = 0; j < n; j += LANES) {
        Vec products[LANES] = {};
        for (int64_t i = 0; i < dim; i += LANES)
            for (int l = 0; l < LANES; l++) products[l] += load(q + i) * load(keys + (j + l) * dim + i);
        store(scores + j, sums<LANES>(products) * scale);
    }
}

// Scores [n] become shares of one; gives nothing for the places up to the next multiple of LANES.
static void softmax(float* scores, int64_t n) {
    int64_t end = (n + LANES - 1) / LANES * LANES;
    std::fill(scores + n, scores + end, -INFINITY);
    float most = *std::max_element(scores, scores + n);
    Vec total{};
    for (int64_t i = 0; i < end; i += LANES) {
        Vec e = exponential(load(scores + i) - most);
        if (i + LANES > n)
            for (int64_t l = n - i; l < LANES; l++) e[l] = 0;
        total += e;
        store(scores + i, e);
    }
    float scale = 1.0f / sum(total);
    for (int64_t i = 0; i < end; i += LANES) store(scores + i, load(scores + i) * scale);
}

// N panels of the mean of n values are added to y.
template <int N>
static inline void mix(const float* shares, const float* values, int64_t dim, int64_t n, float* y) {
    Vec acc[1][N][2];
    tile<Floats, 1, N>(shares, 0, values, dim, PANEL, n, acc);
    for (int i = 0; i < 2 * N; i++) store(y + i * LANES, load(y + i * LANES) + acc[0][i / 2][i % 2]);
}

// One token's query heads that share a key head, [group, dim], attend to the first n keys: y [group, dim]. All heads take a few keys, then
// a few values, at a time: these come from memory once, in order.
static void attend(const float* q, const float* keys, const float* values, int64_t group, int64_t dim, int64_t n, float* y) {
    constexpr int64_t FEW = 64;
    static thread_local std::vector<float> scores;
    int64_t stride = (n + LANES - 1) / LANES * LANES;
    if ((int64_t)scores.size() < group * stride) scores.resize(group * stride);
    float scale = 1.0f / std::sqrt((float)dim);
    for (int64_t j = 0; j < n; j += FEW)
        for (int64_t g = 0; g < group; g++)
            compare(q + g * dim, keys + j * dim, dim, std::min(FEW, n - j), scale, scores.data() + g * stride + j);
    for (int64_t g = 0; g < group; g++) softmax(scores.data() + g * stride, n);
    std::memset(y, 0, group * dim * sizeof(float));
    for (int64_t j = 0; j < n; j += FEW)
        for (int64_t g = 0; g < group; g++) {
            const float* shares = scores.data() + g * stride + j;
            int64_t d = 0, count = std::min(FEW, n - j);
            for (; d + 4 * PANEL <= dim; d += 4 * PANEL) mix<4>(shares, values + j * dim + d, dim, count, y + g * dim + d);
            for (; d < dim; d += PANEL) mix<1>(shares, values + j * dim + d, dim, count, y + g * dim + d);
        }
}

static void attention(const Model& m, const Pass& pass, const float* qkv, const float* keys, const float* values, float* y) {
    int64_t dim = m.head_dim, kv = m.kv_heads, group = m.heads / kv, all = m.heads + 2 * kv;
#pragma omp for schedule(dynamic)
    for (int64_t item = 0; item < pass.tokens * kv; item++) {
        int64_t t = item / kv, h = item % kv, place = pass.row[t] * pass.of_row + h * pass.of_head;
        const float* q = qkv + (t * all + h * group) * dim;
        attend(q, keys + place, values + place, group, dim, pass.position[t] + 1, y + (t * m.heads + h * group) * dim);
    }
}

// gate_up [tokens, 2 * size] becomes silu(gate) * up [tokens, size].
static void activate(const float* gate_up, float* y, int64_t tokens, int64_t size) {
#pragma omp for
    for (int64_t t = 0; t < tokens; t++) {
        const float *gate = gate_up + 2 * t * size, *up = gate + size;
        int64_t i = 0;
        for (; i + LANES <= size; i += LANES) {
            Vec g = load(gate + i), down = -g;
            down = down > 88.0f ? Vec{} + 88.0f : down;
            store(y + t * size + i, g / (exponential(down) + 1.0f) * load(up + i));
        }
        for (; i < size; i++) y[t * size + i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
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

template <class W>
static void rows(const Linear& of, const int64_t* rows, int64_t count, float* y) {
    int64_t groups = Int8s::groups(of.in);
    for (int64_t i = 0; i < count; i++) {
        int64_t panel = rows[i] / PANEL, o = rows[i] % PANEL;
        const auto* from = (const typename W::Number*)of.weight + panel * of.in * PANEL;
        for (int64_t k = 0; k < of.in; k++) {
            float scale = of.scale ? of.scale[(panel * groups + k / Int8s::GROUP) * PANEL + o] : 1.0f;
            y[i * of.in + k] = W::value(from[W::place(k, o)]) * scale;
        }
    }
}

extern "C" {

int64_t kernos_panel() { return PANEL; }

int64_t kernos_group() { return Int8s::GROUP; }

int64_t kernos_unit() { return Int8s::UNIT; }

// Bring the numbers of a weight [out, in] into panels.
void kernos_pack(const Linear* of, const void* weight) {
    if (of->kind == FLOAT) pack<Floats>(*of, weight);
    if (of->kind == BFLOAT) pack<Bfloats>(*of, weight);
    if (of->kind == INT8) pack<Int8s>(*of, weight);
}

// Rows of a packed weight as floats [count, in]: looking up the embeddings that a head is tied to.
void kernos_rows(const Linear* of, const int64_t* rows, int64_t count, float* y) {
    if (of->kind == FLOAT) ::rows<Floats>(*of, rows, count, y);
    if (of->kind == BFLOAT) ::rows<Bfloats>(*of, rows, count, y);
    if (of->kind == INT8) ::rows<Int8s>(*of, rows, count, y);
}

void kernos_linear(const Linear* of, const float* x, float* y, int64_t tokens, int64_t threads) {
#pragma omp parallel num_threads(threads)
    linear(*of, x, y, tokens, false);
}

// Logits y [tokens, vocabulary] of x [tokens, dim], which is overwritten.
void kernos_logits(const Model* m, float* x, float* y, int64_t tokens, int64_t threads) {
#pragma omp parallel num_threads(threads)
    {
        norms(x, m->norm, x, tokens, m->head.in, m->eps);
        linear(m->head, x, y, tokens, false);
    }
}

// Layers `first` to before `last` of a pass.
void kernos_layers(const Model* model, const Pass* given, int64_t first, int64_t last) {
    const Model& m = *model;
    const Pass& pass = *given;
#pragma omp parallel num_threads(pass.threads)
    for (int64_t index = first; index < last; index++) {
        const Layer& layer = m.layers[index];
        int64_t n = pass.tokens, dim = layer.qkv.in;
        float *h = pass.scratch, *qkv = h + n * dim, *attended = qkv + n * layer.qkv.out;
        float *gate_up = attended + n * layer.out.in, *active = gate_up + n * layer.gate_up.out;
        float *keys = pass.keys + index * pass.of_layer, *values = pass.values + index * pass.of_layer;
        norms(pass.x, layer.norm_in, h, n, dim, m.eps);
        linear(layer.qkv, h, qkv, n, false);
        heads(m, layer, pass, qkv, keys, values);
        attention(m, pass, qkv, keys, values, attended);
        linear(layer.out, attended, pass.x, n, true);
        norms(pass.x, layer.norm_mid, h, n, dim, m.eps);
        linear(layer.gate_up, h, gate_up, n, false);
        activate(gate_up, active, n, layer.down.in);
        linear(layer.down, active, pass.x, n, true);
    }
}

}  // extern "C"

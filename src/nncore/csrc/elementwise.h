/* Loops over arrays: everything of a step that is not a product of matrices, in the order of the
 * data's way. A template, see vector.h. */

/* The table of activations: sigma and its derivative in terms of its value a = sigma(z), (7). */

INLINE V NAME(identity)(V z) { return z; }
INLINE V NAME(identity_derivative)(V a) {
    (void)a;
    return NAME(all)(1);
}

INLINE V NAME(sigmoid_derivative)(V a) { return a * (1 - a); }

INLINE V NAME(tanh_derivative)(V a) { return 1 - a * a; }

INLINE V NAME(relu)(V z) { return SELECT(z < 0, NAME(all)(0), z); }
INLINE V NAME(relu_derivative)(V a) { return SELECT(a > 0, NAME(all)(1), NAME(all)(0)); }

INLINE V NAME(leaky_relu)(V z) { return SELECT(z < 0, R(0.01) * z, z); }
INLINE V NAME(leaky_relu_derivative)(V a) {
    return SELECT(a > 0, NAME(all)(1), NAME(all)(R(0.01)));
}

INLINE V NAME(elu)(V z) { return SELECT(z < 0, NAME(expm1_nonpositive)(z), z); }
INLINE V NAME(elu_derivative)(V a) { return SELECT(a > 0, NAME(all)(1), a + 1); }

/* sigma(z) = 1 - e^-softplus(z). */
INLINE V NAME(softplus_derivative)(V a) { return -NAME(expm1_nonpositive)(-a); }

INLINE V NAME(exp_derivative)(V a) { return a; }

/* A <- sigma(A + b) row by row; b may be NULL. */
static void NAME(bias_activation)(void *A_, const void *b_, enum nncore_activation activation,
                                  ptrdiff_t n_rows, ptrdiff_t n) {
    real *A = A_;
    const real *b = b_;
    if (activation == NNCORE_SOFTMAX) {
        if (b)
            NAME(bias_activation)(A, b, NNCORE_IDENTITY, n_rows, n);
        NAME(softmax)(A, n_rows, n);
        return;
    }
    if (!b) { /* one long row */
        if (activation == NNCORE_IDENTITY)
            return;
        n *= n_rows;
        n_rows = n > 0;
    }
    switch (activation) {
#define X(ACTIVATION, sigma)                                                                   \
    case NNCORE_##ACTIVATION:                                                                  \
        for (ptrdiff_t i = 0; i < n_rows; i++, A += n)                                         \
            if (b)                                                                             \
                FOR_EACH_VECTOR (j, count, n)                                                  \
                    STORE(A + j, NAME(sigma)(LOAD(A + j, count) + LOAD(b + j, count)), count); \
            else                                                                               \
                FOR_EACH_VECTOR (j, count, n)                                                  \
                    STORE(A + j, NAME(sigma)(LOAD(A + j, count)), count);                      \
        break;
        NNCORE_ELEMENTWISE_ACTIVATIONS(X)
#undef X
    case NNCORE_SOFTMAX:
        break;
    }
}

static void NAME(times_derivative)(void *delta_, const void *A_, enum nncore_activation activation,
                                   ptrdiff_t count) {
    real *delta = delta_;
    const real *A = A_;
    if (activation == NNCORE_IDENTITY)
        return;
    switch (activation) {
#define X(ACTIVATION, sigma)                                                                      \
    case NNCORE_##ACTIVATION:                                                                     \
        FOR_EACH_VECTOR (i, left, count)                                                          \
            STORE(delta + i, LOAD(delta + i, left) * NAME(sigma##_derivative)(LOAD(A + i, left)), \
                  left);                                                                          \
        break;
        NNCORE_ELEMENTWISE_ACTIVATIONS(X)
#undef X
    case NNCORE_SOFTMAX: /* only an output's, whose delta is A - Y */
        break;
    }
}

/* Probabilities are kept one epsilon from 0 and 1, so that no logarithm sees 0. */
INLINE V NAME(log_clipped)(V p) {
    const V low = NAME(all)(EPSILON), high = NAME(all)(1 - EPSILON);
    return NAME(log)(SELECT(p < low, low, SELECT(p > high, high, p)));
}

/* Half the Poisson deviance, y ln(y / a) - y + a; the first term is 0 for y = 0, and a that is
 * rounded to 0 counts as the smallest normal number. */
INLINE V NAME(poisson)(V a, V y) {
    const V low = NAME(all)(SMALLEST), one = NAME(all)(1);
    const V ratio = NAME(log)(SELECT(y > 0, y, one)) - NAME(log)(SELECT(a < low, low, a));
    return SELECT(y > 0, y * ratio, NAME(all)(0)) - y + a;
}

static void NAME(one_hot)(void *Y_, const ptrdiff_t *classes, const ptrdiff_t *order,
                          ptrdiff_t first, ptrdiff_t n_rows, ptrdiff_t n) {
    real *Y = Y_;
    memset(Y, 0, (size_t)(n_rows * n) * sizeof(real));
    for (ptrdiff_t i = 0; i < n_rows; i++, first++)
        Y[i * n + classes[order ? order[first] : first]] = 1;
}

static double NAME(gather_weights)(void *out_, const void *weights_, const ptrdiff_t *order,
                                   ptrdiff_t first, ptrdiff_t n_rows) {
    real *out = out_;
    const real *weights = weights_;
    double total = 0;
    for (ptrdiff_t i = 0; i < n_rows; i++, first++)
        total += (double)(out[i] = weights[order ? order[first] : first]);
    return total;
}

static double NAME(loss)(const void *A_, const void *Y_, const void *sample_weight_,
                         enum nncore_loss loss, ptrdiff_t n_rows, ptrdiff_t n) {
    const real *A = A_, *Y = Y_, *sample_weight = sample_weight_;
    double total = 0;
    ptrdiff_t left = n_rows * n;
    if (!sample_weight) /* rows need not be told apart: sums of 16 terms per lane lose little */
        n = 16 * LANES;
    for (; left > 0; left -= n, A += n, Y += n) {
        const double weight = sample_weight ? (double)*sample_weight++ : 1.0;
        if (weight == 0) /* whatever the row holds */
            continue;
        V row = {0};
        FOR_EACH_VECTOR (j, count, left < n ? left : n) {
            const V a = LOAD(A + j, count), y = LOAD(Y + j, count);
            switch (loss) {
            case NNCORE_SQUARED_ERROR:
                row = NAME(fma)(R(0.5) * (a - y), a - y, row);
                break;
            case NNCORE_BINARY_CROSS_ENTROPY: {
                const V term = y * NAME(log_clipped)(a) + (1 - y) * NAME(log_clipped)(1 - a);
                row -= count >= LANES ? term : (V)((VB)term & NAME(first_lanes)(count));
                break;
            }
            case NNCORE_CROSS_ENTROPY: /* beyond the row's end y is 0, and so is the term */
                row = NAME(fma)(-y, NAME(log_clipped)(a), row);
                break;
            case NNCORE_POISSON:
                row += NAME(poisson)(a, y);
                break;
            case NNCORE_ABSOLUTE_ERROR:
                row += NAME(abs)(a - y);
                break;
            case NNCORE_HUBER: {
                const V r = NAME(abs)(a - y);
                row += SELECT(r <= 1, R(0.5) * r * r, r - R(0.5));
                break;
            }
            }
        }
        total += (double)NAME(sum)(row) * weight;
    }
    return total;
}

static void NAME(output_delta)(void *delta_, const void *A, const void *Y_,
                               const void *sample_weight_, enum nncore_loss loss,
                               enum nncore_activation activation, ptrdiff_t n_rows, ptrdiff_t n) {
    real *delta = delta_;
    const real *a = A, *y = Y_, *sample_weight = sample_weight_;
    if (!sample_weight) { /* one long row */
        n *= n_rows;
        n_rows = n > 0;
    }
    for (ptrdiff_t i = 0; i < n_rows; i++) {
        const V weight = NAME(all)(sample_weight ? sample_weight[i] : 1);
        FOR_EACH_VECTOR (j, count, n) {
            const ptrdiff_t at = i * n + j;
            V r = LOAD(a + at, count) - LOAD(y + at, count);
            if (loss == NNCORE_ABSOLUTE_ERROR)
                r = SELECT(r > 0, NAME(all)(1), SELECT(r < 0, NAME(all)(-1), r));
            else if (loss == NNCORE_HUBER)
                r = SELECT(r > 1, NAME(all)(1), SELECT(r < -1, NAME(all)(-1), r));
            STORE(delta + at, weight * r, count);
        }
    }
    if (loss == NNCORE_SQUARED_ERROR || loss == NNCORE_ABSOLUTE_ERROR || loss == NNCORE_HUBER)
        NAME(times_derivative)(delta, A, activation, n_rows * n);
    for (ptrdiff_t i = 0; sample_weight && i < n_rows; i++)
        if (sample_weight[i] == 0) /* whatever the row holds */
            memset(delta + i * n, 0, (size_t)n * sizeof(real));
}

INLINE double NAME(vector_sum)(const real *x, ptrdiff_t count) {
    double total = 0;
    for (ptrdiff_t block = 0; block < count;
         block += 16 * LANES) { /* in float much would be lost */
        V part = {0};
        FOR_EACH_VECTOR (j, left, count - block < 16 * LANES ? count - block : 16 * LANES)
            part += LOAD(x + block + j, left);
        total += (double)NAME(sum)(part);
    }
    return total;
}

static void NAME(column_sums)(void *db_, const void *delta_, double scale, double beta,
                              ptrdiff_t n_rows, ptrdiff_t n) {
    real *db = db_;
    const real *delta = delta_;
    if (n == 1) { /* a plain vector */
        double sum = scale * NAME(vector_sum)(delta, n_rows);
        *db = (real)(beta == 0 ? sum : sum + beta * *db);
        return;
    }
    FOR_EACH_VECTOR (j, count, n) {
        /* Four sums at once, so that none waits for its own last addition; and in blocks: a long
         * sum of one by one would lose what is small beside it. */
        V sum = {0};
        for (ptrdiff_t block = 0; block < n_rows; block += 1024) {
            const ptrdiff_t end = n_rows - block < 1024 ? n_rows : block + 1024;
            V parts[4] = {{0}};
            ptrdiff_t i = block;
            for (; i + 4 <= end; i += 4)
                for (ptrdiff_t part = 0; part < 4; part++)
                    parts[part] += LOAD(delta + (i + part) * n + j, count);
            for (; i < end; i++)
                parts[0] += LOAD(delta + i * n + j, count);
            sum += (parts[0] + parts[1]) + (parts[2] + parts[3]);
        }
        sum *= (real)scale;
        if (beta != 0) /* what db held before must not matter otherwise, NaN included */
            sum += (real)beta * LOAD(db + j, count);
        STORE(db + j, sum, count);
    }
}

static void NAME(sgd)(void *parameters_, const void *gradient_, double learning_rate,
                      double weight_decay, ptrdiff_t count) {
    real *w = parameters_;
    const real *gradient = gradient_;
    const V rate = NAME(all)((real)learning_rate), decay = NAME(all)((real)weight_decay);
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = NAME(fma)(decay, x, LOAD(gradient + i, left));
        STORE(w + i, x - rate * g, left);
    }
}

static void NAME(momentum)(void *parameters_, void *velocity_, const void *gradient_,
                           double learning_rate, double momentum, int nesterov, double weight_decay,
                           ptrdiff_t count) {
    real *w = parameters_, *velocity = velocity_;
    const real *gradient = gradient_;
    const V rate = NAME(all)((real)learning_rate), decay = NAME(all)((real)weight_decay);
    const V mu = NAME(all)((real)momentum);
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = NAME(fma)(decay, x, LOAD(gradient + i, left));
        const V v = mu * LOAD(velocity + i, left) - rate * g;
        STORE(velocity + i, v, left);
        STORE(w + i, x + (nesterov ? mu * v - rate * g : v), left);
    }
}

static void NAME(adam)(void *parameters_, void *m_, void *v_, const void *gradient_,
                       double step_size, double beta_1, double beta_2, double epsilon,
                       double weight_decay, ptrdiff_t count) {
    real *w = parameters_, *m = m_, *v = v_;
    const real *gradient = gradient_;
    const V decay = NAME(all)((real)weight_decay), step = NAME(all)((real)step_size);
    const V b1 = NAME(all)((real)beta_1), b2 = NAME(all)((real)beta_2);
    const V c1 = NAME(all)((real)(1 - beta_1)), c2 = NAME(all)((real)(1 - beta_2));
    FOR_EACH_VECTOR (i, left, count) {
        const V x = LOAD(w + i, left);
        const V g = NAME(fma)(decay, x, LOAD(gradient + i, left));
        const V m_new = NAME(fma)(b1, LOAD(m + i, left), c1 * g);
        const V v_new = NAME(fma)(b2, LOAD(v + i, left), c2 * g * g);
        STORE(m + i, m_new, left);
        STORE(v + i, v_new, left);
        STORE(w + i, x - step * m_new / (NAME(sqrt)(v_new) + (real)epsilon), left);
    }
}

static double NAME(square_sum)(const void *x_, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    const real *x = x_;
    if (stride == n) { /* one long row */
        n *= n_rows;
        n_rows = n > 0;
    }
    double total = 0;
    for (ptrdiff_t i = 0; i < n_rows; i++, x += stride)
        for (ptrdiff_t block = 0; block < n; block += 256) { /* in float a long sum would drift */
            const ptrdiff_t length = n - block < 256 ? n - block : 256;
            V part = {0};
            FOR_EACH_VECTOR (j, left, length) {
                const V value = LOAD(x + block + j, left);
                part = NAME(fma)(value, value, part);
            }
            total += (double)NAME(sum)(part);
        }
    return total;
}

static void NAME(scale)(void *x_, double factor, ptrdiff_t count) {
    real *x = x_;
    FOR_EACH_VECTOR (i, left, count)
        STORE(x + i, (real)factor * LOAD(x + i, left), left);
}

static void NAME(map)(void *out_, const void *x_, enum nncore_function function, ptrdiff_t count) {
    real *out = out_;
    const real *x = x_;
    FOR_EACH_VECTOR (i, left, count) {
        const V value = LOAD(x + i, left);
        STORE(out + i, function == NNCORE_EXP ? NAME(exp)(value) : NAME(log)(value), left);
    }
}

/* 0 times a NaN or an infinity is NaN, and stays it in a sum. */
static int NAME(finite)(const void *x_, ptrdiff_t n_rows, ptrdiff_t n, ptrdiff_t stride) {
    const real *x = x_;
    const V zero = {0};
    V sums[4] = {{0}};
    if (stride == n) { /* one long row */
        n *= n_rows;
        n_rows = n > 0;
    }
    for (ptrdiff_t row = 0; row < n_rows; row++, x += stride) {
        ptrdiff_t i = 0;
        for (; i + 4 * LANES <= n; i += 4 * LANES)
            for (ptrdiff_t j = 0; j < 4; j++)
                sums[j] = NAME(fma)(NAME(load)(x + i + j * LANES), zero, sums[j]);
        FOR_EACH_VECTOR (j, left, n - i)
            sums[0] = NAME(fma)(LOAD(x + i + j, left), zero, sums[0]);
    }
    return NAME(sum)((sums[0] + sums[1]) + (sums[2] + sums[3])) == 0;
}

static ptrdiff_t NAME(first_beyond)(const void *x_, double limit, ptrdiff_t count) {
    const real *x = x_;
    const V most = NAME(all)((real)limit);
    ptrdiff_t i = 0;
    for (const ptrdiff_t block = 16 * LANES; i + block <= count; i += block) {
        VB within = NAME(all_bits)(~(bits)0);
        for (ptrdiff_t j = 0; j < block; j += LANES)
            within &= (VB)(NAME(abs)(NAME(load)(x + i + j)) <= most); /* NaN is not */
        bits all = ~(bits)0;
        for (ptrdiff_t j = 0; j < LANES; j++)
            all &= within[j];
        if (!all)
            break;
    }
    while (i < count && x[i] <= (real)limit && x[i] >= -(real)limit)
        i++;
    return i;
}

"""The interface of the C core. The headers in csrc describe each function."""

from libc.stdint cimport uint64_t

from nncore._kernels cimport Activation, Loss

cdef extern from "nncore.h" nogil:
    ctypedef struct nncore_sigma:
        Activation kind
        double slope

    bint nncore_keeps_derivatives(nncore_sigma sigma) noexcept

    enum nncore_function:
        NNCORE_EXP
        NNCORE_LOG

    enum nncore_source:
        NNCORE_FLOAT32
        NNCORE_FLOAT64
        NNCORE_UINT8

    ctypedef struct nncore_kernels:
        const char *name
        Py_ssize_t panel_width
        void (*gather)(
            void *A, const void *X, nncore_source source, Py_ssize_t row_stride,
            Py_ssize_t column_stride, const Py_ssize_t *order, Py_ssize_t n_order,
            Py_ssize_t first, Py_ssize_t panel_width, Py_ssize_t row, Py_ssize_t n_rows,
            Py_ssize_t capacity, Py_ssize_t n) noexcept nogil
        void (*scatter)(
            void *out, const void *A, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t capacity,
            Py_ssize_t n) noexcept nogil
        void (*transpose)(
            void *W_transposed, const void *W, Py_ssize_t p, Py_ssize_t k_begin, Py_ssize_t k_end,
            Py_ssize_t n_prev, Py_ssize_t n) noexcept nogil
        void (*forward)(
            void *A, void *derivatives, const void *A_prev, Py_ssize_t A_stride, const void *W,
            const void *b, nncore_sigma sigma, Py_ssize_t row, Py_ssize_t n_rows,
            Py_ssize_t capacity, Py_ssize_t n_prev, Py_ssize_t n) noexcept nogil
        void (*delta)(
            void *delta_prev, const void *delta, const void *W_transposed, const void *A_prev,
            nncore_sigma sigma, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t capacity,
            Py_ssize_t n_prev, Py_ssize_t n) noexcept nogil
        void (*gradient)(
            void *dW, const void *delta, const void *A_prev, double scale, double beta,
            Py_ssize_t panel_step, Py_ssize_t p_begin, Py_ssize_t p_end, Py_ssize_t k_begin,
            Py_ssize_t k_end, Py_ssize_t n_examples, Py_ssize_t capacity, Py_ssize_t n_prev,
            Py_ssize_t n) noexcept nogil
        void (*forward_rows)(
            void *A, const void *A_prev, const void *W, const void *b, nncore_sigma sigma,
            Py_ssize_t n_rows, Py_ssize_t n_prev, Py_ssize_t n) noexcept nogil
        void (*bias_activation)(
            void *A, void *derivatives, const void *b, nncore_sigma sigma, Py_ssize_t n_rows,
            Py_ssize_t n) noexcept nogil
        void (*times_derivative)(
            void *delta, const void *A, nncore_sigma sigma, Py_ssize_t count) noexcept nogil
        void (*dropout)(
            void *A, double rate, uint64_t seed, uint64_t step, uint64_t l,
            uint64_t first_example, Py_ssize_t first_unit, Py_ssize_t panel_width,
            Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t capacity, Py_ssize_t n) noexcept nogil
        void (*dropout_derivative)(
            void *delta, const void *A, nncore_sigma sigma, double rate, uint64_t seed,
            uint64_t step, uint64_t l, uint64_t first_example, Py_ssize_t first_unit,
            Py_ssize_t panel_width, Py_ssize_t row, Py_ssize_t n_rows, Py_ssize_t capacity,
            Py_ssize_t n) noexcept nogil
        double (*gather_weights)(
            void *out, const void *weights, const Py_ssize_t *order, Py_ssize_t first,
            Py_ssize_t n_rows) noexcept nogil
        double (*loss)(
            const void *A, const void *Y, const void *sample_weight, Loss loss,
            double threshold, Py_ssize_t n_rows, Py_ssize_t n,
            Py_ssize_t stride) noexcept nogil
        void (*output_delta)(
            void *delta, const void *A, const void *derivatives, const void *Y,
            const void *sample_weight, Loss loss, double threshold, nncore_sigma sigma,
            Py_ssize_t n_rows, Py_ssize_t n, Py_ssize_t stride) noexcept nogil
        double (*class_loss)(
            const void *A, const Py_ssize_t *classes, const Py_ssize_t *order, Py_ssize_t first,
            const void *sample_weight, Py_ssize_t n_rows, Py_ssize_t stride) noexcept nogil
        void (*class_delta)(
            void *delta, const void *A, const Py_ssize_t *classes, const Py_ssize_t *order,
            Py_ssize_t first, const void *sample_weight, Py_ssize_t n_rows, Py_ssize_t n,
            Py_ssize_t stride) noexcept nogil
        void (*column_sums)(
            void *db, const void *delta, double scale, double beta,
            Py_ssize_t n_rows, Py_ssize_t n) noexcept nogil
        void (*sgd)(
            void *parameters, const void *gradient, double learning_rate, double weight_decay,
            Py_ssize_t count) noexcept nogil
        void (*momentum)(
            void *parameters, void *velocity, const void *gradient, double learning_rate,
            double momentum, bint nesterov, double weight_decay, bint accumulates,
            Py_ssize_t count) noexcept nogil
        void (*adam)(
            void *parameters, void *m, void *v, const void *gradient, double step_size,
            double beta_1, double beta_2, double epsilon, double weight_decay,
            Py_ssize_t count) noexcept nogil
        void (*amsgrad)(
            void *parameters, void *m, void *v, void *v_max, const void *gradient,
            double step_size, double beta_1, double beta_2, double epsilon, double weight_decay,
            Py_ssize_t count) noexcept nogil
        void (*rmsprop)(
            void *parameters, void *v, void *mean, void *velocity, const void *gradient,
            double learning_rate, double rho, double momentum, double epsilon,
            double weight_decay, Py_ssize_t count) noexcept nogil
        double (*square_sum)(
            const void *x, Py_ssize_t n_rows, Py_ssize_t n, Py_ssize_t stride) noexcept nogil
        void (*scale)(void *x, double factor, Py_ssize_t count) noexcept nogil
        void (*map)(
            void *out, const void *x, nncore_function function, Py_ssize_t count) noexcept nogil
        bint (*finite)(
            const void *x, Py_ssize_t n_rows, Py_ssize_t n, Py_ssize_t stride) noexcept nogil
        Py_ssize_t (*first_beyond)(const void *x, double limit, Py_ssize_t count) noexcept nogil

    const nncore_kernels *nncore_f32
    const nncore_kernels *nncore_f64
    bint nncore_choose(const char *name) noexcept
    bint nncore_supports(const char *name) noexcept
    const char *nncore_compiler

cdef extern from "system.h" nogil:
    double nncore_seconds() noexcept
    ctypedef uint64_t nncore_float_mode
    nncore_float_mode nncore_flush_subnormals() noexcept
    void nncore_set_float_mode(nncore_float_mode mode) noexcept

cdef extern from "team.h" nogil:
    ctypedef struct nncore_team:
        pass

    enum:
        NNCORE_SPINS
        NNCORE_YIELDS

    void nncore_pause(int spins) noexcept
    void nncore_team_open(nncore_team *team, void *asleep) noexcept
    void nncore_team_close(nncore_team *team) noexcept
    bint nncore_team_closed(nncore_team *team) noexcept
    void nncore_team_begin(nncore_team *team, Py_ssize_t n_items) noexcept
    Py_ssize_t nncore_team_take(nncore_team *team) noexcept
    void nncore_team_finish(nncore_team *team) noexcept
    bint nncore_team_done(nncore_team *team) noexcept
    void nncore_team_stop(nncore_team *team, bint stopped) noexcept
    bint nncore_team_stopped(nncore_team *team) noexcept
    bint nncore_team_doze(nncore_team *team, int rank) noexcept
    bint nncore_team_rouse(nncore_team *team, int rank) noexcept

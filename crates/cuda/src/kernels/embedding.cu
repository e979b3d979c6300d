// Rows of a table [N, D], f32, by their numbers, and the gradient of the table.

enum { MOST_LABELS = 512 };

struct Rows { int row[MOST_LABELS]; };

// y [n, D] = the rows; any grid
KERNEL embedding_rows(const __grid_constant__ Rows rows, const float* table, float* y, int n, int D) {
    for (long long i = thread_index(); i < (long long)n * D; i += thread_count()) {
        const int row = (int)quotient(i, D);
        y[i] = table[(long long)rows.row[row] * D + (i - (long long)row * D)];
    }
}

// table [N, D] = sums of the rows of dy [n, D] with each number, in their order, added to the table if it is not the first part; any grid
KERNEL embedding_grad(const __grid_constant__ Rows rows, const float* dy, float* table, int n, int N, int D, int is_first) {
    for (long long i = thread_index(); i < (long long)N * D; i += thread_count()) {
        const int row = (int)quotient(i, D), d = (int)(i - (long long)row * D);
        float sum = is_first ? 0.0f : table[i];
        for (int k = 0; k < n; k++)
            if (rows.row[k] == row) sum += dy[(long long)k * D + d];
        table[i] = sum;
    }
}

// Standard normal numbers, the same as on the host: Philox4x32-10 addressed by (seed, purpose, step, sample), Box-Muller in double, rounded once.

struct Words { unsigned w[4]; };
DEVICE Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned long long a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = (unsigned)(b >> 32) ^ c1 ^ k0;
        c2 = (unsigned)(a >> 32) ^ c3 ^ k1;
        c1 = (unsigned)b;
        c3 = (unsigned)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words words;
    words.w[0] = c0, words.w[1] = c1, words.w[2] = c2, words.w[3] = c3;
    return words;
}

// The stream of one sample. Bits that do not fit into the counter are folded into the key.
struct Stream {
    unsigned sample, step, last, k0, k1;
    DEVICE Words block(long long b) const { return philox((unsigned)b, sample, step, last, k0, k1); }
};
DEVICE Stream stream_of(unsigned long long sample, unsigned long long seed, unsigned long long step, int purpose) {
    Stream s;
    s.k0 = (unsigned)seed, s.k1 = (unsigned)(seed >> 32);
    if ((sample >> 32) != 0 || (step >> 56) != 0) {
        const Words folded = philox((unsigned)(sample >> 32), (unsigned)(step >> 56), 0u, 255u << 24, s.k0, s.k1);
        s.k0 = folded.w[0], s.k1 = folded.w[1];
    }
    s.sample = (unsigned)sample, s.step = (unsigned)step;
    s.last = (unsigned)purpose << 24 | ((unsigned)(step >> 32) & 0x00FFFFFFu);
    return s;
}

// Two independent numbers from two words; the half keeps the logarithm's argument away from 0 and from 1.
DEVICE void box_muller(unsigned w_radius, unsigned w_angle, float* out) {
    const double ulp = 1.0 / 4294967296.0, tau = 6.283185307179586476925286766559;
    const double radius = sqrt(-2.0 * log(((double)w_radius + 0.5) * ulp));
    double s, c;
    sincos(tau * ((double)w_angle * ulp), &s, &c);
    out[0] = (float)(radius * c);
    out[1] = (float)(radius * s);
}

// out [rows, each]: row r holds the first `each` numbers of the stream of sample samples[r]; grid (any, rows or fewer)
KERNEL normals(float* out, const unsigned long long* samples, long long rows, long long each, unsigned long long seed, unsigned long long step, int purpose) {
    const long long blocks = (each + 3) / 4;
    for (long long r = blockIdx.y; r < rows; r += gridDim.y) {
        const Stream stream = stream_of(samples[r], seed, step, purpose);
        for (long long b = thread_index(); b < blocks; b += thread_count()) {
            const Words words = stream.block(b);
            float four[4];
            box_muller(words.w[0], words.w[1], four);
            box_muller(words.w[2], words.w[3], four + 2);
            float* to = out + r * each + 4 * b;
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (4 * b + i < each) to[i] = four[i];
        }
    }
}

// out [rows, each]: `factor` where the element's uniform number (24 random bits, a word each) is below `keep`, else 0; streams and grid as above
KERNEL keep_factors(float* out, const unsigned long long* samples, long long rows, long long each, unsigned long long seed, unsigned long long step, int purpose, double keep, float factor) {
    const long long blocks = (each + 3) / 4;
    for (long long r = blockIdx.y; r < rows; r += gridDim.y) {
        const Stream stream = stream_of(samples[r], seed, step, purpose);
        for (long long b = thread_index(); b < blocks; b += thread_count()) {
            const Words words = stream.block(b);
            float* to = out + r * each + 4 * b;
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (4 * b + i < each) to[i] = (double)((float)(words.w[i] >> 8) * (1.0f / 16777216.0f)) < keep ? factor : 0.0f;
        }
    }
}

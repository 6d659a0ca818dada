// What it is: one TLS client session between two memory BIOs; see tls.hpp.
// Who calls it: the stream.
// Never: touches a file descriptor, prompts for a pass phrase, or leaves an exit handler behind.
#include "broker/stream/tls.hpp"
#include "broker/stream/other_protocols.hpp"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace eventbus::broker {

namespace {

std::string openssl_words() {
    const char* words = ERR_reason_error_string(ERR_peek_error());
    return words ? words : "unknown TLS error";
}

bool is_address(const std::string& name) {
    in_addr v4;
    in6_addr v6;
    return inet_pton(AF_INET, name.c_str(), &v4) == 1 || inet_pton(AF_INET6, name.c_str(), &v6) == 1;
}

// The server tells us by an alert that it dislikes our certificate, or the lack of one.
bool is_certificate_alert(int reason) {
    switch (reason) {
        case SSL_R_SSLV3_ALERT_NO_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
        case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
        case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
            return true;
        default:
            return false;
    }
}

constexpr std::size_t most_heard = 200;

int no_pass_phrase(char*, int, int, void*) {
    return -1;
}

}  // namespace

bool Tls::refuse_file(const char* option, const std::string& file, const std::string& why) {
    error_ = std::string("could not load ") + option + " \"" + file + "\": " + why;
    is_settings_error_ = true;
    return false;
}

bool Tls::readable(const char* option, const std::string& file) {
    return access(file.c_str(), R_OK) == 0 || refuse_file(option, file, std::strerror(errno));
}

bool Tls::load_files(const TlsSettings& settings) {
    SSL_CTX* context = context_.get();
    if (!settings.ca_file.empty()) {
        if (!readable("ca_file", settings.ca_file)) return false;
        if (SSL_CTX_load_verify_locations(context, settings.ca_file.c_str(), nullptr) != 1)
            return refuse_file("ca_file", settings.ca_file, openssl_words());
    } else if (settings.verify) {
        SSL_CTX_set_default_verify_paths(context);
    }
    if (!settings.crl_file.empty()) {
        if (!readable("crl_file", settings.crl_file)) return false;
        X509_STORE* store = SSL_CTX_get_cert_store(context);
        // Nothing but lists is taken from the file: it makes no authority.
        X509_LOOKUP* lookup = X509_STORE_add_lookup(store, X509_LOOKUP_file());
        if (lookup == nullptr || X509_load_crl_file(lookup, settings.crl_file.c_str(), X509_FILETYPE_PEM) < 1)
            return refuse_file("crl_file", settings.crl_file, openssl_words());
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL);
    }
    if (settings.cert_file.empty()) return true;
    if (!readable("cert_file", settings.cert_file)) return false;
    if (SSL_CTX_use_certificate_chain_file(context, settings.cert_file.c_str()) != 1)
        return refuse_file("cert_file", settings.cert_file, openssl_words());
    if (!readable("key_file", settings.key_file)) return false;
    if (SSL_CTX_use_PrivateKey_file(context, settings.key_file.c_str(), SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return refuse_file("key_file", settings.key_file, openssl_words());
    return true;
}

bool Tls::start(const TlsSettings& settings, const Host& host) {
    OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, nullptr);
    ERR_clear_error();
    scheme_ = settings.scheme;
    context_.reset(SSL_CTX_new(TLS_client_method()));
    if (!context_) return fail("could not start TLS") == Step::done;
    SSL_CTX_set_min_proto_version(context_.get(), settings.least == TlsVersion::v1_3 ? TLS1_3_VERSION : TLS1_2_VERSION);
    SSL_CTX_set_options(context_.get(), SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(context_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_default_passwd_cb(context_.get(), no_pass_phrase);
    SSL_CTX_set_verify(context_.get(), settings.verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, nullptr);
    if (!load_files(settings)) return false;

    session_.reset(SSL_new(context_.get()));
    incoming_ = BIO_new(BIO_s_mem());
    outgoing_ = BIO_new(BIO_s_mem());
    if (!session_ || !incoming_ || !outgoing_) {
        BIO_free(incoming_);
        BIO_free(outgoing_);
        return fail("could not start TLS") == Step::done;
    }
    SSL_set_bio(session_.get(), incoming_, outgoing_);
    SSL_set_connect_state(session_.get());

    const std::string name = host.name.substr(0, host.name.find('%'));  // without an IPv6 scope
    X509_VERIFY_PARAM* wanted = SSL_get0_param(session_.get());
    // A name counts where it stands as a subjectAltName (RFC 9525); what is in the subject may be anything.
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    bool named = true;
    if (host.is_unix()) return true;
    if (is_address(name)) {
        if (settings.verify) named = X509_VERIFY_PARAM_set1_ip_asc(wanted, name.c_str()) == 1;
    } else {
        named = SSL_set_tlsext_host_name(session_.get(), name.c_str()) == 1;
        if (settings.verify) named = named && X509_VERIFY_PARAM_set1_host(wanted, name.c_str(), 0) == 1;
    }
    return named || fail("could not start TLS") == Step::done;
}

Tls::Step Tls::fail(const char* when) {
    const unsigned long code = ERR_peek_error();
    const long verdict = session_ ? SSL_get_verify_result(session_.get()) : X509_V_OK;
    const bool refused = verdict != X509_V_OK && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED;
    if (refused) {
        error_ = std::string("the server's certificate is not accepted: ") + X509_verify_cert_error_string(verdict);
    } else {
        error_ = std::string(when) + ": " + openssl_words() + no_tls();
    }
    is_settings_error_ = refused || is_certificate_alert(ERR_GET_REASON(code));
    drain();  // the alert that tells the server why
    return Step::failed;
}

std::string Tls::no_tls() const {
    const bool is_record = heard_.size() > 1 && heard_[0] >= '\x14' && heard_[0] <= '\x17' && heard_[1] == '\x03';
    if (heard_.empty() || is_record || SSL_is_init_finished(session_.get()) == 1) return {};
    std::string another = other_protocol(heard_, scheme_);
    if (another.empty() && !scheme_.empty()) another = "use " + scheme_without_tls(scheme_) + ":// in the broker's URL";
    return "; the server does not speak TLS on this port" + (another.empty() ? another : ": " + another);
}

std::string Tls::about() const {
    const SSL* session = session_.get();
    std::string words = std::string(SSL_get_version(session)) + ", " + SSL_get_cipher_name(session);
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(SSL_get_peer_certificate(session), X509_free);
    std::tm end{};
    if (certificate && ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) == 1) {
        std::array<char, 32> date;
        if (std::strftime(date.data(), date.size(), "%Y-%m-%d", &end) > 0)
            words += std::string("; the server's certificate is valid until ") + date.data();
    }
    return SSL_get_verify_mode(session) == SSL_VERIFY_NONE ? words + ", and is not verified (option verify)" : words;
}

std::string Tls::if_it_speaks_none() const {
    if (!heard_.empty() || scheme_.empty()) return {};
    return "; if it does not speak TLS on this port, use " + scheme_without_tls(scheme_) + "://";
}

// Takes the session's records over into the wire.
void Tls::drain() {
    while (outgoing_ && session_) {
        const std::size_t pending = BIO_ctrl_pending(outgoing_);
        if (pending == 0) return;
        const int got = BIO_read(outgoing_, wire_.room(pending), static_cast<int>(pending));
        if (got <= 0) return;
        wire_.commit(static_cast<std::size_t>(got));
    }
}

Tls::Step Tls::handshake() {
    ERR_clear_error();
    const int result = SSL_do_handshake(session_.get());
    const int why = SSL_get_error(session_.get(), result);
    if (result != 1 && why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) return fail("TLS handshake failed");
    drain();
    return result == 1 ? Step::done : Step::again;
}

std::size_t Tls::encrypt(std::string_view plain) {
    std::size_t taken = 0;
    ERR_clear_error();
    if (SSL_write_ex(session_.get(), plain.data(), plain.size(), &taken) != 1) taken = 0;
    drain();
    return taken;
}

void Tls::feed(std::string_view records) {
    std::size_t written = 0;
    if (heard_.size() < most_heard) heard_ += records.substr(0, most_heard - heard_.size());
    BIO_write_ex(incoming_, records.data(), records.size(), &written);
}

Tls::Step Tls::decrypt(Bytes& plain) {
    for (;;) {
        constexpr std::size_t record = 16 * 1024;
        std::size_t got = 0;
        ERR_clear_error();
        const int result = SSL_read_ex(session_.get(), plain.room(record), record, &got);
        if (result == 1) {
            plain.commit(got);
            continue;
        }
        const int why = SSL_get_error(session_.get(), result);
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
            drain();
            return Step::again;
        }
        return why == SSL_ERROR_ZERO_RETURN ? Step::done : fail("TLS failed");
    }
}

}  // namespace eventbus::broker

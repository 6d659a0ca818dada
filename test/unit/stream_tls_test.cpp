// What it is: tests of the byte stream over TLS: trust, names, certificates, last words.
// Who calls it: make -C test/unit stream.
// Never: trusts a certificate that it did not make.
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <fstream>
#include <string>

#include "broker/stream/stream.hpp"
#include "stream_support.hpp"

using namespace eventbus;
using namespace eventbus::broker;
using namespace eventbus::test;
using namespace std::chrono_literals;

namespace {

class TlsStream : public ::testing::Test {
 protected:
    static void SetUpTestSuite() {
        dir_ = new TempDir;
        make_certificates(*dir_);
    }
    static void TearDownTestSuite() {
        delete dir_;
        dir_ = nullptr;
    }

    static std::string file(const std::string& name) { return dir_->file(name); }
    static TlsSettings trusting(const std::string& ca) {
        TlsSettings settings;
        settings.enabled = true;
        settings.ca_file = ca.empty() ? "" : file(ca);
        return settings;
    }

    struct ServerOptions {
        bool wants_client = false;
        int max_version = 0;
        std::string certificate = "server.pem";
        std::string last_words = {};  // said after the handshake, before an orderly close
    };

    // Echoes; its errors are the client's to notice.
    static Server::Script serve(ServerOptions options) {
        return [options](Socket& socket) {
            SSL_CTX* context = SSL_CTX_new(TLS_server_method());
            SSL_CTX_use_certificate_chain_file(context, file(options.certificate).c_str());
            SSL_CTX_use_PrivateKey_file(context, file("server.key").c_str(), SSL_FILETYPE_PEM);
            if (options.max_version) SSL_CTX_set_max_proto_version(context, options.max_version);
            if (options.max_version == TLS1_1_VERSION) SSL_CTX_set_security_level(context, 0);
            if (options.wants_client) {
                SSL_CTX_load_verify_locations(context, file("ca.pem").c_str(), nullptr);
                SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
            }
            SSL* session = SSL_new(context);
            SSL_set_fd(session, socket.fd());
            if (SSL_accept(session) == 1) {
                if (!options.last_words.empty()) {
                    SSL_write(session, options.last_words.data(), static_cast<int>(options.last_words.size()));
                    SSL_shutdown(session);
                } else {
                    std::string bytes(65536, '\0');
                    for (int got; (got = SSL_read(session, bytes.data(), 65536)) > 0;)
                        if (SSL_write(session, bytes.data(), got) != got) break;
                }
            }
            ERR_clear_error();
            SSL_free(session);
            SSL_CTX_free(context);
            socket.wait_for_end();
        };
    }

    static bool drive_until(Stream& stream, const std::function<bool()>& met) {
        const auto end = Clock::now() + 20s;
        while (!met() && Clock::now() < end) stream.drive(wait_for(stream.interest(), 50ms));
        return met();
    }
    static bool closes(Stream& stream) {
        return drive_until(stream, [&] { return stream.state() == Stream::State::closed; });
    }
    static void expect_echo(Stream& stream, std::size_t length) {
        std::string bytes(length, '\0'), back;
        for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
        stream.write(bytes);
        ASSERT_TRUE(drive_until(stream, [&] {
            back += stream.inbox();
            stream.consume(stream.inbox().size());
            return back.size() >= length || stream.state() == Stream::State::closed;
        }));
        EXPECT_TRUE(back == bytes) << stream.error();
        EXPECT_EQ(stream.unsent(), 0u);
    }
    static void expect_settings_error(const Host& host, const TlsSettings& settings, const std::string& words) {
        Stream stream(host, settings);
        ASSERT_TRUE(closes(stream)) << words;
        EXPECT_NE(stream.error().find(words), std::string::npos) << stream.error();
        EXPECT_TRUE(stream.is_settings_error()) << stream.error();
    }

 private:
    static TempDir* dir_;
};

TempDir* TlsStream::dir_ = nullptr;

}  // namespace

TEST_F(TlsStream, EchoByNameAndByAddress) {
    Server server(serve({}));
    for (const char* name : {"localhost", "127.0.0.1"}) {
        Stream stream({name, server.host().port}, trusting("ca.pem"));
        expect_echo(stream, 5);
        expect_echo(stream, 16 * 1024 * 1024);
        EXPECT_FALSE(stream.interest().write);
    }
}

TEST_F(TlsStream, Version12IsTheLeast) {
    Server fine(serve({.max_version = TLS1_2_VERSION}));
    Stream stream(fine.host(), trusting("ca.pem"));
    expect_echo(stream, 100000);
    Server old(serve({.max_version = TLS1_1_VERSION}));
    Stream refused(old.host(), trusting("ca.pem"));
    ASSERT_TRUE(closes(refused));
    EXPECT_EQ(refused.error().find("TLS handshake failed: "), 0u) << refused.error();
    EXPECT_FALSE(refused.is_settings_error());
}

TEST_F(TlsStream, TheLeastVersionIsAnOption) {
    Server old(serve({.max_version = TLS1_2_VERSION}));
    TlsSettings settings = trusting("ca.pem");
    settings.least = TlsVersion::v1_3;
    Stream refused(old.host(), settings);
    ASSERT_TRUE(closes(refused));
    EXPECT_EQ(refused.error().find("TLS handshake failed: "), 0u) << refused.error();
    Server fine(serve({}));
    Stream stream(fine.host(), settings);
    expect_echo(stream, 100000);
}

TEST_F(TlsStream, ANameInTheSubjectAloneIsNotEnough) {
    Server server(serve({.certificate = "cn.pem"}));
    expect_settings_error({"localhost", server.host().port}, trusting("ca.pem"),
                          "the server's certificate is not accepted: hostname mismatch");
    TlsSettings unverified = trusting("ca.pem");
    unverified.verify = false;
    Stream stream({"localhost", server.host().port}, unverified);
    expect_echo(stream, 1000);
}

TEST_F(TlsStream, RevokedCertificates) {
    Server server(serve({}));
    TlsSettings settings = trusting("ca.pem");
    settings.crl_file = file("empty.crl");
    {
        Stream stream(server.host(), settings);
        expect_echo(stream, 1000);
    }
    settings.crl_file = file("revoked.crl");
    expect_settings_error(server.host(), settings, "the server's certificate is not accepted: certificate revoked");
    settings.crl_file = file("missing.crl");
    expect_settings_error(server.host(), settings, "could not load crl_file \"" + file("missing.crl") + '"');
    settings.crl_file = file("ca.pem");  // a certificate is no list, and none is trusted for standing there
    expect_settings_error(server.host(), settings, "could not load crl_file");
}

TEST_F(TlsStream, WrongAuthority) {
    Server server(serve({}));
    expect_settings_error(server.host(), trusting("other_ca.pem"),
                          "the server's certificate is not accepted: unable to get local issuer certificate");
    expect_settings_error(server.host(), trusting(""), "the server's certificate is not accepted: ");
}

TEST_F(TlsStream, WrongName) {
    Server server(serve({}));
    // 127.1 is an address that the certificate does not have, written so that it counts as a name.
    Stream stream({"127.1", server.host().port}, trusting("ca.pem"));
    ASSERT_TRUE(closes(stream));
    EXPECT_EQ(stream.error(), "the server's certificate is not accepted: hostname mismatch");
    EXPECT_TRUE(stream.is_settings_error());
}

TEST_F(TlsStream, VerifyCanBeTurnedOff) {
    Server server(serve({}));
    TlsSettings settings = trusting("other_ca.pem");
    settings.verify = false;
    Stream stream({"127.1", server.host().port}, settings);
    expect_echo(stream, 1000);
}

TEST_F(TlsStream, FilesThatCannotBeLoaded) {
    Server server(serve({}));
    expect_settings_error(server.host(), trusting("missing.pem"),
                          "could not load ca_file \"" + file("missing.pem") + "\": No such file or directory");
    std::ofstream(file("garbage.pem")) << "garbage";
    expect_settings_error(server.host(), trusting("garbage.pem"), "could not load ca_file");
    TlsSettings settings = trusting("ca.pem");
    settings.cert_file = file("client.pem");
    settings.key_file = file("server.key");
    expect_settings_error(server.host(), settings, "could not load key_file");
    settings.key_file = file("locked.key");
    run("openssl ec -aes128 -passout pass:x -in " + file("client.key") + " -out " + file("locked.key"));
    expect_settings_error(server.host(), settings, "could not load key_file");
    settings.cert_file = file("garbage.pem");
    expect_settings_error(server.host(), settings, "could not load cert_file");
}

TEST_F(TlsStream, ClientCertificates) {
    Server server(serve({.wants_client = true}));
    TlsSettings settings = trusting("ca.pem");
    settings.cert_file = file("client.pem");
    settings.key_file = file("client.key");
    Stream stream(server.host(), settings);
    expect_echo(stream, 1000);
    stream.close("");
    expect_settings_error(server.host(), trusting("ca.pem"), "certificate required");
}

TEST_F(TlsStream, LastWordsAndOrderlyClose) {
    Server server(serve({.last_words = "bye"}));
    Stream stream(server.host(), trusting("ca.pem"));
    ASSERT_TRUE(closes(stream));
    EXPECT_EQ(stream.error(), "the server closed the connection");
    EXPECT_EQ(stream.inbox(), "bye");
}

TEST_F(TlsStream, ServersThatDoNotSpeakTls) {
    TlsSettings settings = trusting("ca.pem");
    settings.scheme = "rediss";
    Server talks([](Socket& socket) {
        socket.receive();
        socket.send("-ERR what is this\r\n");
        socket.wait_for_end();
    });
    Stream stream(talks.host(), settings);
    ASSERT_TRUE(closes(stream));
    EXPECT_EQ(stream.error(),
              "TLS handshake failed: wrong version number; the server does not speak TLS on this port: use redis:// in "
              "the broker's URL");
    EXPECT_FALSE(stream.is_settings_error());

    Server leaves([](Socket& socket) { socket.receive(); });
    Stream left(leaves.host(), settings);
    ASSERT_TRUE(closes(left));
    EXPECT_EQ(left.error(),
              "the server closed the connection during the TLS handshake; if it does not speak TLS on this port, use "
              "redis://");

    Server web([](Socket& socket) {
        socket.receive();
        socket.send("HTTP/1.1 400 Bad Request\r\n\r\n");
        socket.wait_for_end();
    });
    Stream to_web(web.host(), settings);
    ASSERT_TRUE(closes(to_web));
    EXPECT_NE(to_web.error().find("the server answers in HTTP (\"HTTP/1.1 400 Bad Request\")"), std::string::npos)
        << to_web.error();
}

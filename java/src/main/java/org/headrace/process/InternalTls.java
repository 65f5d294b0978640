package org.headrace.process;

import org.apache.flink.annotation.Internal;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.SecurityOptions;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.node.ObjectNode;

import org.headrace.process.FlinkKeystore.Fallback;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;

import javax.naming.InvalidNameException;
import javax.naming.ldap.LdapName;
import javax.naming.ldap.Rdn;

/**
 * Flink's certificate for connections inside the cluster, as PEM for a child: docs/adr/0115. Not for the
 * task thread: it reads files.
 *
 * @param key the private key
 * @param chain its certificate, and those of the issuers
 * @param trusted what a peer's certificate must be, or be issued by
 * @param name a name in the certificate, for whoever checks it
 */
@Internal
public record InternalTls(String key, String chain, String trusted, String name) {

    private static final Fallback KEYSTORE =
            new Fallback(SecurityOptions.SSL_INTERNAL_KEYSTORE, SecurityOptions.SSL_KEYSTORE);
    private static final Fallback KEYSTORE_PASSWORD =
            new Fallback(SecurityOptions.SSL_INTERNAL_KEYSTORE_PASSWORD, SecurityOptions.SSL_KEYSTORE_PASSWORD);
    private static final Fallback KEY_PASSWORD =
            new Fallback(SecurityOptions.SSL_INTERNAL_KEY_PASSWORD, SecurityOptions.SSL_KEY_PASSWORD);
    private static final Fallback TRUSTSTORE =
            new Fallback(SecurityOptions.SSL_INTERNAL_TRUSTSTORE, SecurityOptions.SSL_TRUSTSTORE);
    private static final Fallback TRUSTSTORE_PASSWORD =
            new Fallback(SecurityOptions.SSL_INTERNAL_TRUSTSTORE_PASSWORD, SecurityOptions.SSL_TRUSTSTORE_PASSWORD);

    private static final String KEY_FILE = "tls-key.pem";
    private static final String CHAIN_FILE = "tls-chain.pem";
    private static final String TRUSTED_FILE = "tls-trusted.pem";

    /** Kinds of alternative names; RFC 5280, section 4.2.1.6. */
    private static final int DNS_NAME = 2;

    private static final int IP_ADDRESS = 7;

    /** Whether Flink's own connections inside the cluster are to use TLS. */
    static boolean isEnabled(Configuration flink) {
        return SecurityOptions.isInternalSSLEnabled(flink);
    }

    /**
     * Reads Flink's stores.
     *
     * @throws TlsSettingsException if one cannot be used; the text names the setting
     */
    public static InternalTls read(Configuration flink) throws TlsSettingsException {
        FlinkKeystore keystore =
                FlinkKeystore.open(
                        flink, KEYSTORE, KEYSTORE_PASSWORD, SecurityOptions.SSL_INTERNAL_KEYSTORE_TYPE);
        FlinkKeystore truststore =
                FlinkKeystore.open(
                        flink, TRUSTSTORE, TRUSTSTORE_PASSWORD, SecurityOptions.SSL_INTERNAL_TRUSTSTORE_TYPE);
        try {
            String alias = keystore.keyAlias();
            Certificate[] chain = keystore.store().getCertificateChain(alias);
            X509Certificate own = (X509Certificate) chain[0];
            return new InternalTls(
                    pem("PRIVATE KEY", keystore.key(alias, KEY_PASSWORD, flink).getEncoded()),
                    pem(Arrays.asList(chain)),
                    pem(trusted(flink, truststore, own)),
                    name(own, keystore.setting()));
        } catch (GeneralSecurityException e) {
            throw new TlsSettingsException(
                    String.format(
                            "The certificates of `%s` and `%s` cannot be used: %s.",
                            keystore.setting(), truststore.setting(), e.getMessage()),
                    e);
        }
    }

    /** The fields that tell a child where {@link #writeInto} puts the files. */
    static ObjectNode putPaths(WorkDir directory, ObjectNode into) {
        return into.put("key", directory.path().resolve(KEY_FILE).toString())
                .put("chain", directory.path().resolve(CHAIN_FILE).toString())
                .put("trusted", directory.path().resolve(TRUSTED_FILE).toString());
    }

    /** Writes the files, for their owner only. */
    void writeInto(WorkDir directory) throws IOException {
        directory.write(CHAIN_FILE, chain.getBytes(StandardCharsets.US_ASCII));
        directory.write(TRUSTED_FILE, trusted.getBytes(StandardCharsets.US_ASCII));
        directory.write(KEY_FILE, key.getBytes(StandardCharsets.US_ASCII));
    }

    @Override
    public String toString() {
        return "InternalTls[" + name + "]"; // never the key
    }

    /**
     * What a peer's certificate must be, or be issued by. Where Flink's settings pin certificates by their
     * fingerprints, those alone count, and the truststore only tells what they are.
     */
    private static List<X509Certificate> trusted(Configuration flink, FlinkKeystore truststore, X509Certificate own)
            throws TlsSettingsException, GeneralSecurityException {
        List<X509Certificate> trusted = truststore.trusted();
        String pinned = flink.get(SecurityOptions.SSL_INTERNAL_CERT_FINGERPRINT);
        if (pinned != null && !pinned.isBlank()) {
            Set<String> fingerprints = Arrays.stream(pinned.split(",")).map(InternalTls::bare).collect(Collectors.toSet());
            List<X509Certificate> known = new ArrayList<>(trusted);
            known.add(own);
            trusted = new ArrayList<>();
            for (X509Certificate each : known) {
                if (fingerprints.contains(fingerprint(each)) && !trusted.contains(each)) {
                    trusted.add(each);
                }
            }
            if (trusted.isEmpty()) {
                throw new TlsSettingsException(
                        String.format(
                                "No certificate of the keystore and of `%s` has a fingerprint of `%s`.",
                                truststore.setting(), SecurityOptions.SSL_INTERNAL_CERT_FINGERPRINT.key()),
                        null);
            }
        }
        if (trusted.isEmpty()) {
            throw new TlsSettingsException(
                    String.format("`%s` names a store without a certificate.", truststore.setting()), null);
        }
        return trusted;
    }

    private static String fingerprint(X509Certificate certificate) throws GeneralSecurityException {
        MessageDigest sha1 = MessageDigest.getInstance("SHA-1"); // the one that Flink's setting is of
        return HexFormat.of().formatHex(sha1.digest(certificate.getEncoded()));
    }

    private static String bare(String fingerprint) {
        return fingerprint.replace(":", "").strip().toLowerCase(Locale.ROOT);
    }

    /**
     * A name in the certificate that gRPC finds there too: it looks at the common name only if there are no
     * alternative names.
     */
    private static String name(X509Certificate certificate, String setting)
            throws TlsSettingsException, GeneralSecurityException {
        Collection<List<?>> alternatives = certificate.getSubjectAlternativeNames();
        String name = null;
        if (alternatives == null) {
            name = commonName(certificate);
        } else {
            for (List<?> each : alternatives) {
                boolean isDns = each.get(0).equals(DNS_NAME);
                boolean isIp = each.get(0).equals(IP_ADDRESS) && each.get(1).toString().indexOf(':') < 0;
                if (isDns || (isIp && name == null)) {
                    name = each.get(1).toString();
                }
                if (isDns) {
                    break;
                }
            }
        }
        if (name == null || name.isBlank()) {
            throw new TlsSettingsException(
                    String.format(
                            "The certificate of `%s` has no name: neither a DNS name nor an IPv4 address nor, without"
                                    + " any alternative name, a common name.",
                            setting),
                    null);
        }
        return name;
    }

    private static String commonName(X509Certificate certificate) {
        try {
            for (Rdn each : new LdapName(certificate.getSubjectX500Principal().getName()).getRdns()) {
                if (each.getType().equalsIgnoreCase("CN") && each.getValue() instanceof String value) {
                    return value;
                }
            }
        } catch (InvalidNameException e) {
            return null; // then it has none that could be shown
        }
        return null;
    }

    private static String pem(List<? extends Certificate> certificates) throws GeneralSecurityException {
        StringBuilder text = new StringBuilder();
        for (Certificate each : certificates) {
            text.append(pem("CERTIFICATE", each.getEncoded()));
        }
        return text.toString();
    }

    private static String pem(String kind, byte[] bytes) {
        String lines = Base64.getMimeEncoder(64, new byte[] {'\n'}).encodeToString(bytes);
        return String.format("-----BEGIN %s-----%n%s%n-----END %s-----%n", kind, lines, kind);
    }
}
